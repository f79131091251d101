/** Whether a process's owner is still there, without comparing clocks. Protocol: section 6. */

import type { Connection } from "./connection.js";
import { send } from "./control.js";
import { Closed, NotAllowed } from "./errors.js";
import { bucket, History } from "./history.js";
import type { Stored } from "./history.js";
import { decodeObject, notice } from "./messages.js";
import type { Notice } from "./messages.js";
import { isName, newToken } from "./names.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";
import { recordOf } from "./records.js";
import type { ProcessRecord } from "./records.js";
import { Signal, sleep } from "./waiting.js";

const LEASE_SECONDS = 4;
const OVERDUE_SECONDS = LEASE_SECONDS + 1;
const PING_SECONDS = 1;

/** Since when a node holds no lease, by the server's clock. */
export interface Gone {
  /** RFC 3339; empty if that is longer ago than the server keeps */
  readonly since: string;
  /** it may only be an outage of the bus, after which the node has not renewed its lease yet */
  readonly doubtful: boolean;
}

/** What the last entry of a lease says; null while the lease is held. */
function goneBy(entry: Stored | null, now: string): Gone | null {
  if (!entry) return { since: "", doubtful: false };
  const age = secondsBetween(entry.time, now);
  const overdue = !entry.marker && !saysGoodbye(entry.payload);
  if (overdue && age <= OVERDUE_SECONDS) return null;
  return { since: entry.time, doubtful: overdue || age <= LEASE_SECONDS };
}

function secondsBetween(before: string, after: string): number {
  return (Date.parse(after) - Date.parse(before)) / 1000;
}

function saysGoodbye(payload: Uint8Array): boolean {
  try {
    return Boolean(decodeObject(payload).goodbye);
  } catch {
    return true; // it is no lease
  }
}

/** Which of these nodes hold no lease. */
export async function nodesGone(connection: Connection, nodes: ReadonlySet<string>): Promise<Map<string, Gone>> {
  const leases = bucket(connection, "LEASES");
  const now = await leases.now();
  const gone = new Map<string, Gone>();
  const look = async (node: string): Promise<void> => {
    // what cannot be a node holds none; what is unknown to the replica that answers, the leader may know
    const entry = isName(node) ? ((await leases.get(node)) ?? (await leases.get(node, true))) : null;
    const found = goneBy(entry, now);
    if (found) gone.set(node, found);
  };
  await Promise.all([...nodes].map(look));
  return gone;
}

/** Whether a process whose node holds no lease is silent, too, and has not ended meanwhile. */
async function isLost(connection: Connection, record: ProcessRecord): Promise<boolean> {
  try {
    const ping = { id: newToken(), verb: "ping" };
    if ((await send(connection, record.address, ping, PING_SECONDS)).status === "applied") return false;
  } catch {
    // silent, or not to be asked
  }
  const again = await recordAt(connection, record.address);
  return again !== null && !again.ended && again.node === record.node;
}

/** Which of these live processes nobody owns any more, by their keys, and since when. */
export async function unreachableAmong(connection: Connection, records: readonly ProcessRecord[]): Promise<Map<string, Gone>> {
  const lost = new Map<string, Gone>();
  const gone = records.length ? await nodesGone(connection, new Set(records.map(({ node }) => node))) : new Map<string, Gone>();
  const look = async (record: ProcessRecord): Promise<void> => {
    const found = gone.get(record.node);
    if (found && !(found.doubtful && !(await isLost(connection, record)))) lost.set(record.address.key, found);
  };
  await Promise.all(records.map(look));
  return lost;
}

/** Seconds since each process's last event, by their keys, all by the server's clock. */
export async function quietOf(connection: Connection, records: readonly ProcessRecord[]): Promise<Map<string, number>> {
  const { names } = connection;
  const log = new History(connection, names.store("EVENTS"));
  const subjects = new Map(records.map(({ address }) => [names.of(address, "events"), address.key]));
  if (!subjects.size) return new Map();
  const one = async (subject: string): Promise<[string, Stored | null]> => [subject, await log.last(subject)];
  // not all at once, where they are granted one by one
  const singly = (error: unknown): Promise<[string, Stored | null][]> => {
    if (error instanceof NotAllowed) return Promise.all([...subjects.keys()].map(one));
    throw error;
  };
  const [now, last] = await Promise.all([log.now(), log.lastOf([...subjects.keys()]).catch(singly)]);
  return new Map([...last].flatMap(([subject, entry]) => (entry ? [[subjects.get(subject)!, Math.max(0, secondsBetween(entry.time, now))]] : [])));
}

/** Tell each time that the owner of a process has gone without ending its run; returns how to stop that. */
export function watchOwner(connection: Connection, address: Address, tell: (said: Notice) => void): () => void {
  const look = new Signal();
  let stopped = false;
  let back = false;
  let said = "";
  let watched = "";
  let forgetLease = (): void => {};
  const changed = (record: ProcessRecord | null): void => {
    if (record && record.node !== watched) look.set(); // another owner
  };
  const forgets = [
    connection.subscribe(connection.names.of(address, "record"), (msg) => changed(recordOf(msg.data))),
    connection.on("up", () => {
      back = true;
      look.set();
    }),
  ];

  async function once(): Promise<void> {
    const record = await recordAt(connection, address);
    if (!record || record.ended || said === `${record.node} ${record.epoch}`) return;
    if (record.node !== watched) {
      // of other nodes, who may be many, nothing is heard
      forgetLease();
      watched = record.node;
      if (isName(watched)) forgetLease = connection.subscribe(connection.names.lease(watched), (msg) => !msg.data.length && look.set());
    }
    const gone = await nodesGone(connection, new Set([record.node]));
    if (!gone.size || !(await isLost(connection, record)) || stopped) return;
    said = `${record.node} ${record.epoch}`;
    tell(notice("unreachable", { node: record.node, epoch: record.epoch }, address));
  }

  async function run(): Promise<void> {
    for (look.set(); ; ) {
      await look.wait();
      if (stopped) break;
      if (back) await sleep(LEASE_SECONDS);
      back = false;
      try {
        await once();
      } catch (error) {
        if (error instanceof NotAllowed || error instanceof Closed) break;
        await sleep(PING_SECONDS);
        look.set();
      }
    }
    for (const forget of [...forgets, forgetLease]) forget();
  }

  void run();
  return () => {
    stopped = true;
    look.set();
  };
}
