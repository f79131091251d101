/**
 * What a stream has stored: bounded reads of a subject, and single entries. A read gives every entry up to where it
 * was asked for, in order, or throws ReadFailed: never less in silence. Protocol: section 2.2.
 */

import type { Msg } from "@nats-io/nats-core";

import { BUNDLE, isMarker, unbundle } from "./bundle.js";
import type { Stored } from "./bundle.js";
import { ApiError, ReadFailed, statusOf } from "./connection.js";
import type { Connection } from "./connection.js";
import { encode, fromBase64 } from "./messages.js";
import type { Json } from "./messages.js";

const CHUNK = 1000; // entries in one question
const CHUNK_BYTES = 1024 * 1024; // dozens of them at once are below what makes a server cut a client off
const PATIENCE_SECONDS = 5;
const NO_MESSAGE = 10037;

export type { Stored };

/** A direct get's reply; null if it is a status. A sender's own `Status` header fools nobody. */
function entryOf(msg: Msg): Stored | null {
  const get = (name: string): string => msg.headers?.get(name) ?? "";
  if (!get("Nats-Sequence")) return null;
  const [subject, time] = [get("Nats-Subject"), get("Nats-Time-Stamp")];
  return { position: Number(get("Nats-Sequence")), payload: msg.data, time, subject, marker: isMarker(get) };
}

/** What an answer to a read of many has, and which entry that comes after; nothing if it is a status. */
function entriesOf(msg: Msg): { after: number; entries: Stored[] } {
  const entry = entryOf(msg);
  if (!entry && msg.headers?.has(BUNDLE)) return unbundle(msg.data);
  return { after: Number(msg.headers?.get("Nats-Last-Sequence")), entries: entry ? [entry] : [] };
}

/** The history of a bucket, by its name without the mesh's. */
export function bucket(connection: Connection, name: string): History {
  return new History(connection, `KV_${connection.names.store(name)}`);
}

interface Batch {
  readonly entries: Stored[];
  /** how many more there are */
  readonly pending: number;
}

export class History {
  readonly #direct: string;

  constructor(
    private readonly connection: Connection,
    readonly stream: string,
  ) {
    this.#direct = `$JS.API.DIRECT.GET.${stream}`;
  }

  /** A subject's last entry, as some replica knows it. */
  async last(subject: string): Promise<Stored | null> {
    return entryOf(await this.connection.request(`${this.#direct}.${subject}`, new Uint8Array()));
  }

  /** A subject's first entry at or behind a position, or at or behind a time (`start_time`) of the server's clock. */
  async first(subject: string, where: Json): Promise<Stored | null> {
    return entryOf(await this.connection.request(this.#direct, encode({ ...where, next_by_subj: subject })));
  }

  /** The last entries of many subjects, by these. */
  async lastOf(subjects: readonly string[]): Promise<Map<string, Stored>> {
    const found = new Map<string, Stored>();
    for (let start = 0; start < subjects.length; start += CHUNK) {
      const body: Json = { multi_last: subjects.slice(start, start + CHUNK), max_bytes: CHUNK_BYTES };
      for (let more = 1; more; ) {
        const { entries, pending } = await this.#batch(body);
        for (const entry of entries) found.set(entry.subject, entry);
        body.seq = (entries.at(-1)?.position ?? 0) + 1;
        more = pending;
      }
    }
    return found;
  }

  /** What was stored last for anybody, not what a replica knows; wildcards may be used. */
  lastFromLeader(subject: string): Promise<Stored | null> {
    return this.#fromLeader({ last_by_subj: subject });
  }

  firstFromLeader(subject: string, at = 1): Promise<Stored | null> {
    return this.#fromLeader({ seq: Math.max(at, 1), next_by_subj: subject });
  }

  async #fromLeader(body: Json): Promise<Stored | null> {
    try {
      const { message } = await this.connection.api(`STREAM.MSG.GET.${this.stream}`, body);
      const { seq, data = "", hdrs = "", time, subject } = message;
      const block = new TextDecoder().decode(fromBase64(hdrs));
      const get = (name: string): string => new RegExp(`\\r\\n${name}: *(.*)\\r`).exec(block)?.[1] ?? "";
      return { position: seq, payload: fromBase64(data), time, subject, marker: isMarker(get) };
    } catch (error) {
      if (error instanceof ApiError && error.errCode === NO_MESSAGE) return null;
      throw error;
    }
  }

  /** The last entry of a bucket's key, as some replica knows it, or its leader; markers, too. */
  get(key: string, leader = false): Promise<Stored | null> {
    const subject = `$${this.stream.replace("_", ".")}.${key}`;
    return leader ? this.lastFromLeader(subject) : this.last(subject);
  }

  /** The server's clock. */
  async now(): Promise<string> {
    return (await this.connection.api(`STREAM.INFO.${this.stream}`)).ts;
  }

  /**
   * Give a subject's entries behind position `after` up to `upto`, or to the last one at the time of the call, in
   * order and complete, in lists; of `few` entries, if whoever asks wants hardly more.
   */
  async *read(subject: string, after = 0, upto?: number, few?: number): AsyncGenerator<Stored[], void> {
    const end = upto ?? (await this.lastFromLeader(subject))?.position ?? 0;
    let fetching = after < end ? this.#fetch(subject, after, few) : null;
    while (fetching) {
      const { entries, pending } = await fetching;
      const last = entries.at(-1);
      const next = (): Promise<Batch> | null => (last && pending && last.position < end ? this.#fetch(subject, last.position, few) : null);
      fetching = few ? null : next(); // one list is fetched while another is dealt with
      const wanted = entries.filter((entry) => entry.position <= end);
      after = wanted.at(-1)?.position ?? after;
      if (wanted.length) yield wanted;
      if (wanted.length < entries.length) return;
      fetching ??= next();
    }
    if (after >= end) return;
    // A replica knew of no more entries: the leader knows whether there are any.
    const missing = await this.firstFromLeader(subject, after + 1);
    if (missing && missing.position <= end) throw new ReadFailed(`${this.stream}: a replica lacks position ${missing.position}`);
  }

  #fetch(subject: string, after: number, few = CHUNK): Promise<Batch> {
    const fetching = this.#batch({ seq: after + 1, next_by_subj: subject, batch: Math.min(few, CHUNK), max_bytes: CHUNK_BYTES });
    fetching.catch(() => {}); // it may be awaited by nobody
    return fetching;
  }

  async #batch(body: Json): Promise<Batch> {
    const found: Stored[] = [];
    const asked = this.connection.ask(this.#direct, encode(body), { node: true });
    try {
      for (;;) {
        const msg = await asked.take(PATIENCE_SECONDS);
        const { after, entries } = entriesOf(msg);
        const status = entries.length ? 0 : statusOf(msg);
        if (status === 404) return { entries: [], pending: 0 };
        if (!entries.length && status !== 204) throw new ReadFailed(`${this.stream}: ${msg.headers?.status} is not understood`);
        if (after !== (found.at(-1)?.position ?? 0)) throw new ReadFailed(`${this.stream}: an entry was lost on the way`);
        if (!entries.length) return { entries: found, pending: Number(msg.headers?.get("Nats-Num-Pending")) };
        found.push(...entries);
      }
    } finally {
      asked.close();
    }
  }
}
