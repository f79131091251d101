/** What the buckets hold: who owns an id, what runs where, and which nodes live. Protocol: sections 4 and 6. */

import { BadPayload } from "./errors.js";
import { decodeObject } from "./messages.js";
import type { Json } from "./messages.js";
import { Address } from "./names.js";

/** Where an epoch begins in the log. Everything behind it from another epoch is void. */
export interface Cut {
  readonly epoch: number;
  readonly run: number;
  /** the first offset of the epoch */
  readonly offset: number;
  /** of the mark */
  readonly position: number;
}

/** What a viewer has to know of the record that says who owns an id. */
export interface Claim {
  /** of the claim; 0 without one */
  readonly epoch: number;
  readonly run: number;
  readonly cuts: readonly Cut[];
  readonly ended: boolean;
  /** the first epoch of a log that began with this record; 0 where that is not known */
  readonly born: number;
  /** the last offset of a run that has ended; 0 where that is not known */
  readonly last: number;
}

/** Read a claim record that has that revision. Throws: BadPayload. */
export function parseClaim(payload: Uint8Array, revision: number): Claim {
  const raw = decodeObject(payload, "claim record");
  const { nonce, node, epoch = 0, run = 1, cuts = [], ended, born = 0, last = 0 } = raw;
  const known = Array.isArray(cuts) && cuts.every((cut) => Array.isArray(cut) && cut.length === 4);
  if (nonce === undefined || node === undefined || !known) throw new BadPayload("claim record is not one of ours");
  const table = cuts.map(toCut);
  return { epoch: whole(epoch) || revision, run: whole(run), cuts: table, ended: Boolean(ended), born: whole(born), last: whole(last) };
}

/** Read a cut as it is written: epoch, run, first offset, position. */
export function toCut([epoch, run, offset, position]: Json): Cut {
  return { epoch: whole(epoch), run: whole(run), offset: whole(offset), position: whole(position) };
}

/** What the registry says of a process. */
export interface ProcessRecord {
  readonly address: Address;
  readonly kind: string;
  readonly node: string;
  readonly epoch: number;
  readonly run: number;
  /** running, paused, waiting; completed, failed, interrupted, cancelled, killed once ended */
  readonly state: string;
  readonly started: string;
  readonly updated: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly parent: string;
  /** what it runs, for people */
  readonly title: string;
  readonly pty: boolean;
  /** when messages may land, where not at any time */
  readonly allow: readonly string[];
  /** what it waits for people to answer, shortened */
  readonly asks: readonly { readonly ask: string; readonly question: string; readonly choices?: readonly Json[] }[];
  /** who watches, and in how many places; some of very many */
  readonly viewers: Readonly<Record<string, number>>;
  /** exit code once ended */
  readonly code: number | null;
  /** time of the terminal event; empty while it lives */
  readonly ended: string;
}

/** Read a registry record. Throws: BadPayload. */
export function parseRecord(payload: Uint8Array): ProcessRecord {
  const raw = decodeObject(payload, "registry record");
  const { namespace, id, ...others } = raw;
  if (["namespace", "id", "kind", "node", "epoch", "run", "state", "started", "updated"].some((name) => raw[name] === undefined)) {
    throw new BadPayload("registry record is not one of ours");
  }
  const none = { labels: {}, parent: "", title: "", pty: false, allow: [], asks: [], viewers: {}, code: null, ended: "" };
  return { ...none, ...(others as Json), address: new Address(namespace, id) };
}

/** The same, or null where it is not one that this version understands. */
export function recordOf(payload: Uint8Array): ProcessRecord | null {
  try {
    return parseRecord(payload);
  } catch {
    return null;
  }
}

function whole(value: Json): number {
  if (Number.isSafeInteger(value)) return value;
  throw new BadPayload(`${JSON.stringify(value)} is not a whole number`);
}
