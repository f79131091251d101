/**
 * Follows one process's log: drives the pure `Reader` over NATS. Protocol: section 2.2.
 *
 * Whoever takes nothing gets nothing read: what comes live meanwhile waits up to a bound, and is later read from the
 * log. Watching costs the process nothing, and stopping stops nothing else.
 */

import type { Msg } from "@nats-io/nats-core";

import { Compact } from "./compact.js";
import { passes } from "./connection.js";
import type { Connection } from "./connection.js";
import { BadPayload, Closed, NoServer } from "./errors.js";
import { bucket, History } from "./history.js";
import type { Stored } from "./history.js";
import { watchOwner } from "./liveness.js";
import { notice, parseCursor, parseEntry } from "./messages.js";
import type { Item, ProcessEvent } from "./messages.js";
import type { Address } from "./names.js";
import { WINDOW } from "./ownership.js";
import { BUFFER } from "./reader.js";
import type { Action, Order, Reader } from "./reader.js";
import { recordAt } from "./registry.js";
import { announce } from "./presence.js";
import { readClaim, readerAt } from "./start.js";
import type { Start } from "./start.js";
import { clock, Signal, sleep } from "./waiting.js";

const PROBE_SECONDS = 3;
const PATIENCE_SECONDS = 30;
const QUEUE_BYTES = 16 * 1024 * 1024;
const BACKOFF_SECONDS = 0.05;
const MAX_BACKOFF_SECONDS = 1;

export interface TailOptions {
  /** a cursor to go on behind */
  readonly after?: string;
  /** begin with the last n events */
  readonly n?: number;
  /** begin that many seconds ago, by the server's clock */
  readonly since?: number;
  /** the number of an earlier run, or "all"; the latest unless said */
  readonly run?: number | "all";
  /** false: stop at the end of what is stored */
  readonly follow?: boolean;
  /** give one event for a streamed text that is complete */
  readonly compact?: boolean;
  /** false: not to be counted among the process's viewers while it follows */
  readonly announce?: boolean;
  /** stop watching when it is aborted: the iteration ends */
  readonly signal?: AbortSignal;
}

/**
 * What a process says, as events, and what the reader itself has to say, as notices: each event once, in order, and
 * only what is stored. Iterate it; `cursor` is where to go on.
 */
export class Tail implements AsyncIterableIterator<Item> {
  readonly #subject: string;
  readonly #history: History;
  readonly #claims: History;
  readonly #compact: Compact | null;
  readonly #start: Start;
  readonly #follow: boolean;
  readonly #untilEnd: boolean;
  readonly #watches: boolean;
  readonly #announces: boolean;
  readonly #heard = new Signal();
  readonly #forgets: (() => void)[];
  #turn: Promise<unknown> = Promise.resolve(); // one `next` after the other
  #items: Item[] = [];
  #last: ProcessEvent | null = null; // that was given
  #over = false;
  #seen = false;
  #caughtUp = false;
  #latest = Infinity; // the run with whose end a tail of all runs is over
  #reader: Reader | null = null;
  #todo: Order[] = [];
  #reading: AsyncGenerator<Stored[], void> | null = null;
  #backoff = BACKOFF_SECONDS;
  #patience = clock() + PATIENCE_SECONDS; // until then no answer is not an error yet, where nothing was read so far
  #hearing: (() => void) | null = null;
  #queue: Msg[] = [];
  #bytes = 0;
  #denial: Error | null = null;
  #overflowed = false;
  #reconnected = false;

  constructor(
    private readonly connection: Connection,
    private readonly address: Address,
    { compact = false, signal, ...options }: TailOptions,
    /** for our own reads, which nobody need hear of and that hear of no owner */
    start?: Start,
  ) {
    this.#start = start ?? startOf(options);
    this.#untilEnd = options.run !== "all";
    this.#follow = options.follow ?? true;
    this.#watches = this.#follow && !start;
    this.#announces = this.#watches && (options.announce ?? true);
    this.#compact = compact ? new Compact() : null;
    this.#subject = connection.names.of(address, "events");
    this.#history = new History(connection, connection.names.store("EVENTS"));
    this.#claims = bucket(connection, "CLAIMS");
    const stop = (): void => this.#stop();
    const back = (): void => {
      this.#reconnected = true;
      this.#heard.set();
    };
    this.#forgets = [
      connection.on("up", back),
      connection.on("down", () => this.#heard.set()),
      () => signal?.removeEventListener("abort", stop),
    ];
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop);
  }

  /** Where to go on (`after`): behind the last event given; empty before the first. */
  get cursor(): string {
    return this.#last?.cursor ?? "";
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event or notice. Throws: NoSuchProcess, NotAllowed, BadPayload (a cursor of another log), Closed. */
  next(): Promise<IteratorResult<Item, undefined>> {
    const mine = this.#turn.then(() => this.#next());
    this.#turn = mine.catch(() => {});
    return mine;
  }

  /** Stop watching. What is watched goes on. */
  async return(): Promise<IteratorResult<Item, undefined>> {
    this.#items = [];
    this.#stop();
    return { done: true, value: undefined };
  }

  async #next(): Promise<IteratorResult<Item, undefined>> {
    try {
      while (!this.#items.length && !this.#over) await this.#step();
    } catch (error) {
      this.#stop();
      throw error;
    }
    const value = this.#items.shift();
    if (!value) return this.return();
    if (value.kind === "event") this.#last = value;
    return { done: false, value };
  }

  /** Nothing more comes, also not out of a step that is under way. */
  #stop(): void {
    this.#over = true;
    for (const forget of this.#forgets.splice(0)) forget();
    this.#deafen();
    this.#heard.set();
  }

  /** Give what the reader or somebody else has to say. */
  #give(item: Item): void {
    if (!this.#over) this.#items.push(...(this.#compact?.feed(item) ?? [item]));
  }

  #finish(): void {
    for (const item of this.#compact?.flush() ?? []) this.#items.push(item);
    this.#stop();
  }

  /** Do what is to be done next, or wait for the process to say something. What fails is tried again. */
  async #step(): Promise<void> {
    this.connection.check();
    if (this.#denial) throw this.#denial;
    if (!this.connection.connected) return void (await this.#heard.wait());
    try {
      await (this.#reader ? this.#act(this.#reader) : this.#begin());
    } catch (error) {
      if (!passes(error) || (!this.#reader && clock() > this.#patience)) throw error;
      if (error instanceof NoServer) this.#patience = clock() + PATIENCE_SECONDS;
      if (this.#reading) {
        this.#reading = null;
        this.#apply(this.#reader!.historyFailed());
      }
      await sleep(this.#backoff);
      this.#backoff = Math.min(2 * this.#backoff, MAX_BACKOFF_SECONDS);
    }
  }

  async #begin(): Promise<void> {
    const { connection, address } = this;
    if (this.#start.kind === "first") this.#latest = (await recordAt(connection, address))?.run ?? Infinity;
    const where = { history: this.#history, claims: this.#claims, address, subject: this.#subject };
    const reader = await readerAt(this.#start, { ...where, untilEnd: this.#untilEnd });
    if (this.#over) return;
    this.#reconnected = false;
    this.#reader = reader;
    this.#apply(reader.start());
    if (this.#announces) this.#forgets.push(announce(connection, address));
    if (this.#watches) {
      this.#forgets.push(
        watchOwner(connection, address, (said) => {
          this.#give(said);
          this.#heard.set();
        }),
      );
    }
  }

  async #act(reader: Reader): Promise<void> {
    const order = this.#todo[0];
    if (this.#reconnected) {
      this.#reconnected = false;
      this.#apply(reader.reconnected());
    } else if (this.#overflowed) {
      this.#overflowed = false;
      this.#apply(reader.overflowed());
    } else if (order) {
      await this.#do(reader, order);
      this.#todo.shift();
    } else if (this.#reading) {
      await this.#readOn(reader, this.#reading);
    } else {
      if (!this.#queue.length && !(await this.#heard.wait(PROBE_SECONDS))) this.#todo.push({ kind: "ask_last" });
      this.#backoff = BACKOFF_SECONDS;
      this.#hear(reader);
    }
    if (this.#caughtUp && !this.#seen) await this.#lookForEnd();
  }

  #apply(actions: readonly Action[]): void {
    const stops = this.#untilEnd || (this.#start.kind === "run" && this.#start.run !== undefined);
    for (const action of actions) {
      if (action.kind !== "event" && action.kind !== "notice") {
        this.#todo.push(action);
        continue;
      }
      this.#give(action);
      this.#seen ||= action.kind === "event";
      if (action.kind !== "notice") continue;
      this.#caughtUp ||= action.type === "caught_up";
      if (action.type === "ended" ? stops || action.data.run >= this.#latest : action.type === "caught_up" && !this.#follow) this.#finish();
    }
  }

  async #do(reader: Reader, { kind, ...order }: Order): Promise<void> {
    if (kind === "subscribe") {
      if (this.#follow) this.#listen();
    } else if (kind === "unsubscribe") {
      this.#deafen();
    } else if (kind === "read") {
      const few = this.#start.kind === "above" ? this.#start.few + 2 * WINDOW : undefined;
      this.#reading = this.#history.read(this.#subject, (order as { after: number }).after, undefined, few);
    } else if (kind === "ask_first") {
      this.#reading = null;
      const first = await this.#history.firstFromLeader(this.#subject);
      const claim = await readClaim(this.#claims, this.address);
      this.#apply(reader.first(first?.position ?? 0, claim?.cuts, claim?.epoch));
    } else {
      this.#apply(reader.last((await this.#history.last(this.#subject))?.position ?? 0));
    }
  }

  async #readOn(reader: Reader, reading: AsyncGenerator<Stored[], void>): Promise<void> {
    const { done, value } = await reading.next();
    if (done) {
      this.#reading = null;
      this.#hear(reader);
      this.#apply(reader.historyEnd());
      return;
    }
    this.#backoff = BACKOFF_SECONDS;
    for (const { position, payload } of value) {
      this.#apply(reader.history(position, parseEntry(payload)));
      if (this.#todo.length) {
        // a question, or to read from elsewhere
        this.#reading = null;
        return;
      }
    }
  }

  /** Give the reader what came live. */
  #hear(reader: Reader): void {
    const heard = this.#queue;
    this.#queue = [];
    this.#bytes = 0;
    for (const { headers, data } of heard) {
      const [position, previous] = ["Nats-Sequence", "Nats-Last-Sequence"].map((name) => Number(headers?.get(name) || NaN));
      // else it is not from the stream, so nothing that is stored
      if (position! + previous! > 0) this.#apply(reader.live(position!, previous!, parseEntry(data)));
    }
  }

  #listen(): void {
    const take = (msg: Msg): void => {
      if (this.#overflowed) return;
      this.#queue.push(msg);
      this.#bytes += msg.data.length;
      if (this.#queue.length > BUFFER || this.#bytes > QUEUE_BYTES) {
        // nobody takes it: the server need not send what will be read from the log later
        this.#overflowed = true;
        this.#deafen();
      }
      this.#heard.set();
    };
    this.#hearing?.();
    this.#hearing = this.connection.subscribe(this.connection.names.of(this.address, "live"), take, (denial) => {
      this.#denial = denial;
      this.#heard.set();
    });
  }

  /** Forget the subscription and what it brought. */
  #deafen(): void {
    this.#queue = [];
    this.#bytes = 0;
    this.#hearing?.();
    this.#hearing = null;
  }

  /** Of a run that has ended and whose whole log was trimmed since, say what is gone, and its end. */
  async #lookForEnd(): Promise<void> {
    this.#caughtUp = false;
    const { connection, address } = this;
    const [last, claim, record] = await connection.insist(async () => [
      await this.#history.lastFromLeader(this.#subject),
      await readClaim(this.#claims, address),
      await recordAt(connection, address),
    ] as const);
    const run = this.#start.kind === "run" ? this.#start.run : undefined;
    if (last || !claim || !record?.ended || (run !== undefined && run !== record.run)) return;
    const from = this.#start.kind === "cursor" ? this.#start.cursor.offset + 1 : 1;
    if (claim.last >= from) this.#give(notice("gap", { from, to: claim.last }, address));
    this.#give(notice("ended", { run: record.run, status: record.state, code: record.code }, address));
    this.#finish();
  }
}

/** Where to begin. Throws: BadPayload. */
function startOf({ after, n, since, run }: TailOptions): Start {
  const said = [after, n, since, run].filter((choice) => choice !== undefined);
  if (said.length > 1) throw new BadPayload("choose one of after, n, since and run: each says where the tail begins");
  if (after !== undefined) return { kind: "cursor", cursor: parseCursor(after) };
  if (n !== undefined) return { kind: "last", n };
  if (since !== undefined) return { kind: "since", seconds: since };
  return run === "all" ? { kind: "first" } : { kind: "run", run };
}

/** The first item of a tail that is wanted; null if `timeout` seconds are over before. Throws: Closed, and as iterating it. */
export async function first(tail: Tail, timeout: number | undefined, wanted: (item: Item) => boolean): Promise<Item | null> {
  let late = false;
  const stop = (): void => void ((late = true), tail.return());
  const timer = timeout === undefined ? timeout : setTimeout(stop, timeout * 1000);
  try {
    for await (const item of tail) if (wanted(item)) return item;
  } finally {
    clearTimeout(timer);
  }
  if (late) return null;
  throw new Closed("the log is not followed any more");
}
