/** Commands on hold: kept in the inbox for whoever owns the process next, until their time is over. Protocol: section 5.1. */

import type { Connection } from "./connection.js";
import { Refused } from "./errors.js";
import { encode, receipt } from "./messages.js";
import type { Command, Receipt } from "./messages.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";

const STORE_SECONDS = 5;

/** Keep a command for that many seconds, whole ones; again under its id changes nothing. Throws: Refused, NotAllowed, NoServer. */
export async function hold(connection: Connection, address: Address, command: Command, seconds: number): Promise<Receipt> {
  const { names, sender } = connection;
  const data = command.verb === "answer" ? await named(connection, address, command) : command;
  const ttl = Math.max(1, Math.ceil(seconds));
  const time = new Date();
  const until = new Date(+time + ttl * 1000).toISOString();
  const payload = encode({ id: command.id, time: time.toISOString(), data, kind: "command" }, "command");
  const headers = { "Nats-Msg-Id": `${address.key}.${sender}.command.${command.id}`, "Nats-TTL": `${ttl}` };
  const keep = () => connection.store(names.by(address, "inbox", sender), payload, headers);
  const { seq } = await connection.insist(keep, STORE_SECONDS);
  const why = `nobody serves ${address} now: held until ${until}`;
  return receipt(command, { status: "accepted", why, sender, data: { held_until: until, position: seq } });
}

/** An answer that names the open question that it is for: held, it must not come to another. Throws: Refused. */
async function named(connection: Connection, address: Address, command: Command): Promise<Command> {
  const wanted = command.data?.ask;
  const record = await connection.insist(() => recordAt(connection, address), STORE_SECONDS);
  const [meant, ...others] = (record?.asks ?? []).filter(({ ask }) => wanted === undefined || ask === wanted);
  if (!meant) throw new Refused(`${address} has no such open question, and an answer is held for an open one only: answer once it asks`);
  if (others.length) throw new Refused(`${address} asks more than one thing: name the one that is meant`);
  return { ...command, data: { ...command.data, ask: meant.ask } };
}
