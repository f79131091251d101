/** The registry of processes. Protocol: section 6. It is for lists; it decides nothing. */

import type { Connection } from "./connection.js";
import { bucket } from "./history.js";
import type { History, Stored } from "./history.js";
import { addressOf } from "./names.js";
import type { Address } from "./names.js";
import { recordOf } from "./records.js";
import type { ProcessRecord } from "./records.js";
import { Queue } from "./waiting.js";

const PASSES = 10;

/** What has become of a process: its record, or null once it has ended. */
export interface Change {
  readonly address: Address;
  readonly record: ProcessRecord | null;
}

/** The record of a process, live before ended; null if there is neither. */
export async function recordAt(connection: Connection, address: Address): Promise<ProcessRecord | null> {
  for (const name of ["REGISTRY", "ENDED"]) {
    const found = await bucket(connection, name).get(address.key);
    if (found && !found.marker) return recordOf(found.payload);
  }
  return null;
}

/** Every live record of a namespace (`*`: of the mesh), and with `ended` those that have ended. */
export async function listRecords(connection: Connection, namespace: string, ended = false, only?: string): Promise<ProcessRecord[]> {
  const records = new Map<string, ProcessRecord>();
  for (const [space, id] of parts(connection, namespace, only)) {
    // live ones last, so that a new run hides the ended one before it
    for (const name of ended ? ["ENDED", "REGISTRY"] : ["REGISTRY"]) {
      for (const { payload } of await values(bucket(connection, name), `${space}.${id}`)) {
        const record = recordOf(payload);
        if (record) records.set(record.address.key, record);
      }
    }
  }
  const order = ({ address, started }: ProcessRecord): string => `${address.namespace} ${started} ${address.id}`;
  return [...records.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

/** What to list of a namespace: all of it, unless less is known to be granted. */
function parts(connection: Connection, namespace: string, only = "*"): readonly (readonly [string, string])[] {
  const granted = connection.watches;
  const whole = [[namespace, only]] as const;
  if (only !== "*" || !granted.length || granted.some(([space, id]) => (space === "*" || space === namespace) && id === "*")) return whole;
  const some = granted.filter(([space]) => namespace === "*" || namespace === space);
  return some.length ? some : whole;
}

/** What every key holds that a filter matches; one that holds something all the while is always in it. */
async function values(history: History, filter: string): Promise<Iterable<Stored>> {
  const found = new Map<string, Stored>();
  // A key that is written while it is read moves to the end, so go on until the end stays where it is.
  for (let [pass, behind] = [0, 0]; pass < PASSES; pass++) {
    const last = await history.get(filter, true);
    if (!last || last.position <= behind) break;
    for await (const entries of history.read(last.subject.replace(/[^.]+\.[^.]+$/, filter), behind, last.position)) {
      for (const entry of entries) {
        if (entry.marker) found.delete(entry.subject);
        else found.set(entry.subject, entry);
      }
    }
    behind = last.position;
  }
  return found.values();
}

/**
 * Every change of a live record from now on; with `present` every record that lives now comes first. After a reconnect
 * all come again, and so does what has ended meanwhile. Ends, or throws, by what is pushed into `queue`.
 */
export async function* watchRecords(
  connection: Connection,
  namespace: string,
  present: boolean,
  queue: Queue<Change | "look" | "stop">,
  only?: string,
): AsyncGenerator<Change, void> {
  const known = new Map<string, Address>();
  const hear = (record: ProcessRecord | null, address: Address): void => queue.push({ address, record });
  const forget = parts(connection, namespace, only).map(([space, id]) =>
    connection.subscribe(
      connection.names.records(space, id),
      (msg) => hear(msg.data.length ? recordOf(msg.data) : null, addressOf(msg.subject)),
      (denied) => queue.push(denied),
    ),
  );
  forget.push(connection.on("up", () => queue.push("look")));
  queue.push("look");
  try {
    for (let said = present; ; ) {
      const item = await queue.take();
      if (item === "stop") return;
      for (const change of item === "look" ? await look(connection, namespace, known, only) : [item]) {
        if (change.record) known.set(change.address.key, change.address);
        else known.delete(change.address.key);
        if (said || item !== "look") yield change;
      }
      said ||= item === "look";
    }
  } finally {
    for (const stop of forget) stop();
  }
}

/** What lives now, and null for what is known and does not. */
async function look(connection: Connection, namespace: string, known: Map<string, Address>, only?: string): Promise<Change[]> {
  const records = await connection.insist(() => listRecords(connection, namespace, false, only));
  const alive = new Set(records.map(({ address }) => address.key));
  const gone = [...known.values()].filter(({ key }) => !alive.has(key));
  return [...gone.map((address) => ({ address, record: null })), ...records.map((record) => ({ address: record.address, record }))];
}
