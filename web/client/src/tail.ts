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
import { NoServer } from "./errors.js";
import type { NotAllowed } from "./errors.js";
import { History } from "./history.js";
import type { Stored } from "./history.js";
import { watchOwner } from "./liveness.js";
import { Cursor, Entry, Notice } from "./messages.js";
import type { Item } from "./messages.js";
import type { Address } from "./names.js";
import { BUFFER } from "./reader.js";
import type { Action, Order, Reader } from "./reader.js";
import { recordAt } from "./registry.js";
import type { ProcessRecord } from "./records.js";
import { readClaim, readerAt } from "./start.js";
import type { Start } from "./start.js";
import { clock, Signal, sleep } from "./waiting.js";

const PROBE_SECONDS = 3;
const PATIENCE_SECONDS = 30;
const QUEUE_BYTES = 16 * 1024 * 1024;
const BACKOFF_SECONDS = 0.05;
const MAX_BACKOFF_SECONDS = 1;

export interface FollowOptions {
  readonly start: Start;
  /** stop behind the notice `ended` */
  readonly untilEnd: boolean;
  /** go on with what comes, else stop at the end of the log as it was */
  readonly follow: boolean;
}

/** One reader and what it needs of the bus. Each step deals with one thing. */
export class Follower {
  items: Item[] = [];
  ended = false;
  readonly #subject: string;
  readonly #history: History;
  readonly #claims: History;
  #reader: Reader | null = null;
  #todo: Order[] = [];
  #reading: AsyncGenerator<Stored[], void> | null = null;
  #backoff = BACKOFF_SECONDS;
  #patience = clock() + PATIENCE_SECONDS; // until then no answer is not an error yet, where nothing was read so far
  #hearing: (() => void) | null = null;
  #queue: Msg[] = [];
  #bytes = 0;
  #denial: NotAllowed | null = null;
  #overflowed = false;
  #reconnected = false;
  readonly #heard = new Signal();
  readonly #forgets: (() => void)[];

  constructor(
    private readonly connection: Connection,
    private readonly address: Address,
    private readonly options: FollowOptions,
  ) {
    const { names } = connection;
    this.#subject = names.of(address, "events");
    this.#history = new History(connection, names.eventStream);
    this.#claims = new History(connection, `KV_${names.claims}`);
    const back = (): void => {
      this.#reconnected = true;
      this.#heard.set();
    };
    this.#forgets = [connection.on("up", back), connection.on("down", () => this.#heard.set())];
  }

  /** Stop, also in the middle of a step. */
  close(): void {
    this.ended = true;
    for (const forget of this.#forgets.splice(0)) forget();
    this.#deafen();
    this.#heard.set();
  }

  /** Mix in what somebody else has to say. */
  tell(notice: Notice): void {
    this.items.push(notice);
    this.#heard.set();
  }

  /** Do what is to be done next, or wait for the process to say something. What fails is tried again. */
  async step(): Promise<void> {
    this.connection.check();
    if (this.#denial) throw this.#denial;
    if (!this.connection.connected) return void (await this.#heard.wait());
    try {
      await (this.#reader ? this.#next(this.#reader) : this.#begin());
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
    const where = { history: this.#history, claims: this.#claims, address: this.address, subject: this.#subject };
    this.#reader = await readerAt(this.options.start, { ...where, untilEnd: this.options.untilEnd });
    this.#reconnected = false;
    this.#apply(this.#reader.start());
  }

  async #next(reader: Reader): Promise<void> {
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
      await this.#listen(reader);
    }
  }

  #apply(actions: readonly Action[]): void {
    const { start, untilEnd, follow } = this.options;
    const stops = untilEnd || (start.kind === "run" && start.run !== undefined);
    for (const action of actions) {
      if (action.kind !== "event" && action.kind !== "notice") this.#todo.push(action);
      else {
        this.items.push(action);
        if ((stops && action.type === "ended") || (!follow && action.type === "caught_up")) this.ended ||= action.kind === "notice";
      }
    }
  }

  async #do(reader: Reader, order: Order): Promise<void> {
    const connection = this.connection;
    if (order.kind === "subscribe") {
      if (this.options.follow) this.#listenFrom();
    } else if (order.kind === "unsubscribe") {
      this.#deafen();
    } else if (order.kind === "read") {
      this.#reading = this.#history.read(this.#subject, order.after);
    } else if (order.kind === "ask_first") {
      this.#reading = null;
      const first = await this.#history.firstFromLeader(this.#subject);
      const claim = await readClaim(this.#claims, this.address);
      this.#apply(reader.first(first?.position ?? 0, claim?.cuts, claim?.epoch));
    } else {
      const last = await this.#history.last(connection.names.of(this.address, "events"));
      this.#apply(reader.last(last?.position ?? 0));
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
      this.#apply(reader.history(position, Entry.parse(payload)));
      if (this.#todo.length) {
        // a question, or to read from elsewhere
        this.#reading = null;
        return;
      }
    }
  }

  async #listen(reader: Reader): Promise<void> {
    if (!this.#queue.length && !this.items.length && !(await this.#heard.wait(PROBE_SECONDS))) this.#todo.push({ kind: "ask_last" });
    this.#backoff = BACKOFF_SECONDS;
    this.#hear(reader);
  }

  /** Give the reader what came live. */
  #hear(reader: Reader): void {
    const heard = this.#queue;
    this.#queue = [];
    this.#bytes = 0;
    for (const { headers, data } of heard) {
      const [position, previous] = [Number(headers?.get("Nats-Sequence")), Number(headers?.get("Nats-Last-Sequence") || NaN)];
      // not from the stream, so nothing that is stored
      if (!position || Number.isNaN(previous)) continue;
      this.#apply(reader.live(position, previous, Entry.parse(data)));
    }
  }

  #listenFrom(): void {
    const deny = (denial: NotAllowed): void => {
      this.#denial = denial;
      this.#heard.set();
    };
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
    this.#hearing = this.connection.subscribe(this.connection.names.of(this.address, "live"), take, deny);
  }

  /** Forget the subscription and what it brought. */
  #deafen(): void {
    this.#queue = [];
    this.#bytes = 0;
    this.#hearing?.();
    this.#hearing = null;
  }
}

export interface TailOptions {
  /** a cursor to go on behind */
  readonly after?: string;
  /** the number of an earlier run, or "all"; the latest unless said */
  readonly run?: number | "all";
  /** false: stop at the end of what is stored */
  readonly follow?: boolean;
  /** give one event for a streamed text that is complete */
  readonly compact?: boolean;
  /** stop watching when it is aborted: the iteration ends */
  readonly signal?: AbortSignal;
}

/**
 * What a process says, as events, and what the reader itself has to say, as notices: each event once, in order, and
 * only what is stored. Iterate it; `cursor` is where to go on.
 */
export class Tail implements AsyncIterableIterator<Item> {
  /** of the last event given */
  cursor = "";
  #items: Item[] = [];
  readonly #follower: Follower;
  readonly #compact: Compact | null;
  readonly #start: Start;
  readonly #abort = (): void => void this.return();
  #latest: ProcessRecord | null | undefined; // the run with which a tail of all runs is over
  #forget: (() => void) | null = null;
  #seen = false;
  #over = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly connection: Connection,
    private readonly address: Address,
    private readonly options: TailOptions,
  ) {
    const { after, run, follow = true, compact = false, signal } = options;
    this.#start =
      after !== undefined
        ? { kind: "cursor", cursor: Cursor.parse(after) }
        : run === "all"
          ? { kind: "first" }
          : { kind: "run", run };
    this.#compact = compact ? new Compact() : null;
    this.#follower = new Follower(connection, address, { start: this.#start, untilEnd: run !== "all", follow });
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort, { once: true });
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

  async #next(): Promise<IteratorResult<Item, undefined>> {
    try {
      while (!this.#items.length && !this.#over) await this.#more();
    } catch (error) {
      await this.return();
      throw error;
    }
    const item = this.#items.shift();
    if (!item) {
      await this.return();
      return { done: true, value: undefined };
    }
    if (item.kind === "event") this.cursor = item.cursor;
    return { done: false, value: item };
  }

  /** Stop watching. What is watched goes on. */
  async return(): Promise<IteratorResult<Item, undefined>> {
    this.#over = true;
    this.#items = [];
    this.#forget?.();
    this.#follower.close();
    this.options.signal?.removeEventListener("abort", this.#abort);
    return { done: true, value: undefined };
  }

  async #more(): Promise<void> {
    const follower = this.#follower;
    if (this.#start.kind === "first" && this.#latest === undefined) {
      this.#latest = await this.connection.insist(() => recordAt(this.connection, this.address));
    }
    if (this.options.follow !== false) this.#forget ??= watchOwner(this.connection, this.address, (notice) => follower.tell(notice));
    if (!follower.items.length && !follower.ended) await follower.step();
    if (this.#over) return; // closed meanwhile
    const batch = follower.items.splice(0);
    this.#items.push(...(this.#compact ? batch.flatMap((item) => this.#compact!.feed(item)) : batch));
    this.#seen ||= batch.some((item) => item.kind === "event");
    const said = (type: string): Item[] => batch.filter((item) => item.kind === "notice" && item.type === type);
    if (!this.#seen && said("caught_up").length) this.#finish(await this.#forgotten());
    const run = this.#latest?.run ?? Infinity;
    if (follower.ended || said("ended").some(({ data }) => data.run >= run)) this.#finish(this.#compact?.flush() ?? []);
  }

  #finish(items: readonly Item[] | null): void {
    if (!items) return;
    this.#items.push(...items);
    this.#over = true;
  }

  /** What is left to say of a run that has ended and whose whole log was trimmed since: what is gone, and its end. */
  async #forgotten(): Promise<Notice[] | null> {
    const { names } = this.connection;
    const insist = this.connection.insist.bind(this.connection);
    const history = new History(this.connection, names.eventStream);
    if (await insist(() => history.lastFromLeader(names.of(this.address, "events")))) return null;
    const claim = await insist(() => readClaim(new History(this.connection, `KV_${names.claims}`), this.address));
    const record = await insist(() => recordAt(this.connection, this.address));
    const run = this.#start.kind === "run" ? this.#start.run : undefined;
    if (!claim || !record?.ended || (run !== undefined && run !== record.run)) return null;
    const from = this.#start.kind === "cursor" ? this.#start.cursor.offset + 1 : 1;
    const gap = claim.last >= from ? [new Notice("gap", { from, to: claim.last }, this.address)] : [];
    return [...gap, new Notice("ended", { run: record.run, status: record.state, code: record.code }, this.address)];
  }
}
