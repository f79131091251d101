/** Messages: how they are stored, and what becomes of them, as the process's log says. Protocol: section 3. */

import type { Connection } from "./connection.js";
import { AlreadyEnded, NoServer, NoSuchProcess, NotAllowed, Refused, TimedOut } from "./errors.js";
import { History } from "./history.js";
import { encode, isObject } from "./messages.js";
import type { Json, ProcessEvent } from "./messages.js";
import { newToken } from "./names.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";
import { first, Tail } from "./tail.js";

const WHEN = ["idle", "next", "now"] as const; // the gentlest first
const STORE_SECONDS = 10;

export type When = (typeof WHEN)[number];

export interface SendOptions {
  /** sending it again with the same id within two minutes stores it once */
  readonly id?: string;
  /** when it is to land while the process is in a turn */
  readonly when?: When;
}

export interface WaitOptions {
  /** seconds */
  readonly timeout?: number;
}

/** Store a message in a process's inbox and return once it is. */
export async function store(connection: Connection, address: Address, data: Json, { id, when }: SendOptions): Promise<Sent> {
  const { names, sender } = connection;
  const message = { id: id ?? newToken(), time: new Date().toISOString(), data, ...(when && { when }) };
  const payload = encode(message, "message");
  const headers = { "Nats-Msg-Id": `${address.key}.${sender}.${message.id}` };
  const [run, after] = await Promise.all([runOf(connection, address, when), endOf(connection, address)]);
  try {
    const keep = (): Promise<Json> => connection.store(names.by(address, "inbox", sender), payload, headers);
    const { seq, duplicate = false } = await connection.insist(keep, STORE_SECONDS);
    const again = id !== undefined && duplicate; // of an id that nobody else can have, it is our own repeat
    return new Sent(connection, address, message.id, seq, again, run, again ? 0 : after);
  } catch (error) {
    if (error instanceof NoServer || error instanceof TimedOut) error.message += `; sending it again with id '${message.id}' stores it once`;
    throw error;
  }
}

/** The run that is to take a message; 0 where the sender may not know. Throws: NoSuchProcess, AlreadyEnded, Refused. */
async function runOf(connection: Connection, address: Address, when?: When): Promise<number> {
  let record;
  try {
    record = await connection.insist(() => recordAt(connection, address), STORE_SECONDS);
  } catch (error) {
    if (error instanceof NotAllowed && connection.gated) return 0; // the right to send is not that to watch
    throw error;
  }
  if (!record) throw new NoSuchProcess(`no process ${address} is known here`);
  if (record.ended) throw new AlreadyEnded(`run ${record.run} of ${address} has ended (${record.state}): nobody will read the message`);
  const { allow } = record;
  if (when && allow.length && !WHEN.slice(0, WHEN.indexOf(when) + 1).some((time) => allow.includes(time))) {
    throw new Refused(`${address} takes no message '${when}', only ${allow.join(" or ")}: send it so, or leave it to the process`);
  }
  return record.run;
}

/** The position of a process's last event; 0 if it is not to be had, which costs whoever asks only time. */
async function endOf(connection: Connection, address: Address): Promise<number> {
  const { names } = connection;
  const last = await new History(connection, names.store("EVENTS")).last(names.of(address, "events")).catch(() => null);
  return last?.position ?? 0;
}

/** A message that is stored in a process's inbox. */
export class Sent {
  constructor(
    private readonly connection: Connection,
    readonly address: Address,
    readonly id: string,
    /** sequence in the inbox stream */
    readonly position: number,
    /** a message of that id was stored before, and this one was not */
    readonly duplicate: boolean,
    private readonly run: number,
    private readonly after: number,
  ) {}

  /**
   * Return once the process has taken it: the offset of the event that says so, and when it landed. Throws: Refused if
   * it does not take it from this sender, AlreadyEnded if the run ended before, TimedOut, NotAllowed.
   */
  async consumed({ timeout }: WaitOptions = {}): Promise<{ offset: number; run: number; when: string }> {
    const { offset, run, data } = await this.#until("received", "taken", timeout);
    return { offset, run, when: data.when ?? "idle" };
  }

  /** Return what the process replies to it. Throws: as `consumed`. */
  async reply({ timeout }: WaitOptions = {}): Promise<Json> {
    return (await this.#until("replied", "replied to", timeout)).data.data;
  }

  /** The first event of that type that counts and is about this message. */
  async #until(type: string, what: string, timeout?: number): Promise<ProcessEvent> {
    const { address, id, connection, after } = this;
    const tail = new Tail(connection, address, { run: "all" }, { kind: "behind", position: after });
    const found = await first(tail, timeout, (item) => {
      if (item.kind !== "event") return false;
      if (this.#isMeant(item)) {
        if (item.data.refused) throw new Refused(`${address} does not take message ${id}: ${item.data.refused}`);
        if (item.type === type) return true;
      }
      if (item.type !== "exited" || item.run < this.run) return false;
      throw new AlreadyEnded(`run ${item.run} of ${address} ended (${item.data?.status}) before message ${id} was ${what}`);
    });
    if (!found) throw new TimedOut(`message ${id} to ${address} was not ${what} within ${timeout} s; it is stored, and waits`);
    return found as ProcessEvent;
  }

  #isMeant({ cause, type, data }: ProcessEvent): boolean {
    if (cause !== this.id || !["received", "replied"].includes(type) || !isObject(data)) return false;
    return data.sender === this.connection.sender && (data.position ?? this.position) === this.position;
  }
}
