/** Commands and their receipts. Protocol: section 5. */

import type { Connection } from "./connection.js";
import { NoResponders, passes } from "./connection.js";
import { NoServer, NoSuchProcess, NotAllowed, TimedOut, Unreachable } from "./errors.js";
import { encode, parseReceipt, receipt } from "./messages.js";
import type { Command, Receipt } from "./messages.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";
import { clock, sleep } from "./waiting.js";

const BACK_SECONDS = 2; // after an outage the node may be back a moment later than we are
const RETRY_SECONDS = 0.1;

/**
 * Send a command and return its final receipt, or the one that says `accepted` if time runs out behind it. A lost
 * connection is waited for and the command repeated under its id, which changes nothing. If nobody serves the process,
 * `hold`, if any, keeps it.
 * Throws: NoSuchProcess, Unreachable, NotAllowed, NoServer, TooLarge.
 */
export async function send(
  connection: Connection,
  address: Address,
  command: Command,
  timeout: number,
  hold?: false | (() => Promise<Receipt>),
): Promise<Receipt> {
  const subject = connection.names.by(address, "control", connection.sender);
  const payload = encode(command, "command");
  const until = clock() + timeout;
  const asked: { receipt?: Receipt } = {};
  for (let silent = 0; ; ) {
    try {
      return await exchange(connection, subject, command.id, payload, until, asked);
    } catch (error) {
      if (error instanceof TimedOut || (passes(error) && clock() > until)) break;
      if (error instanceof NoServer) silent = 0;
      else if (error instanceof NoResponders) {
        silent ||= clock();
        const late = await tooLate(connection, address, command, Boolean(hold));
        const long = clock() - silent > BACK_SECONDS;
        if (hold && (late || long)) return hold();
        if (late) return late;
        if (long) throw new Unreachable(`the node of ${address} does not answer: it is gone or cut off`);
      } else throw error;
      await sleep(RETRY_SECONDS);
    }
  }
  if (asked.receipt) return { ...asked.receipt, why: `not applied within ${timeout} s; it stays valid` };
  if (!connection.connected) throw new NoServer(`the connection was lost, and did not return in ${timeout} s`);
  if (hold) return hold();
  throw new Unreachable(`the node of ${address} did not answer '${command.verb}' within ${timeout} s: it is overloaded, stopped or cut off`);
}

async function exchange(
  connection: Connection,
  subject: string,
  id: string,
  payload: Uint8Array,
  until: number,
  asked: { receipt?: Receipt },
): Promise<Receipt> {
  const answers = connection.ask(subject, payload);
  try {
    for (;;) {
      const found = parseReceipt((await answers.take(until - clock())).data);
      if (found.command !== id) continue;
      if (found.status !== "accepted") return found;
      asked.receipt = found;
    }
  } finally {
    answers.close();
  }
}

/** The receipt for a process that does not run; null if it should be running. Throws: NoSuchProcess, unless the command can be held. */
async function tooLate(connection: Connection, address: Address, command: Command, toBeHeld: boolean): Promise<Receipt | null> {
  let record;
  try {
    record = await recordAt(connection, address);
  } catch (error) {
    // restarting, and asked again soon; or the right to control, which is not that to watch
    if (passes(error) || (error instanceof NotAllowed && connection.gated)) return null;
    throw error;
  }
  if (!record && !toBeHeld) throw new NoSuchProcess(`no process ${address} is known here`);
  if (record && !record.ended) return null;
  const { run, state, node = "", epoch = 0 } = record ?? {};
  return receipt(command, { status: "too_late", why: `run ${run} of ${address} has ended (${state})`, sender: connection.sender, node, epoch });
}
