/**
 * The reader of one process's log as a pure state machine: history and live are one thing. Protocol: section 2.2.
 * The same as `natsproc/protocol/reader.py`, checked by the same vectors.
 *
 * Methods take what came from the bus and return what to do, in order. Whatever is lost, doubled, reordered or read
 * again, each event that counts is shown once, in order, and nothing that is not stored. The driver abandons the read
 * in progress (and feeds nothing more of it) whenever a `read` or `ask_first` is returned, and subscribes before it reads.
 */

import { cursorText, eventOf, isObject, notice } from "./messages.js";
import type { Cursor, Entry, Item, Json, Notice, NoticeType, ProcessEvent } from "./messages.js";
import type { Address } from "./names.js";
import { checkCursor, cursorAt, cutBefore, Fold, foreignCursor, mergeCuts } from "./ownership.js";
import type { Cut } from "./records.js";

/** Live entries kept while history is read; above that the reader stops listening until it has caught up. */
export const BUFFER = 8192;

/**
 * `read`: the subject's entries behind `after`, to its last one; then call `historyEnd`.
 * `ask_first`: ask the stream's leader for the subject's first position, then for the claim; call `first`.
 * `ask_last`: ask for the position of the subject's last entry; call `last`.
 * `subscribe`: listen to the live subject. `unsubscribe`: stop, and drop what has been heard and not been fed.
 */
export type Order =
  | { readonly kind: "read"; readonly after: number }
  | { readonly kind: "ask_first" | "ask_last" | "subscribe" | "unsubscribe" };

export type Action = Item | Order;

export interface ReaderOptions {
  readonly cuts?: readonly Cut[];
  readonly cursor?: Cursor;
  readonly position?: number;
  readonly offset?: number;
  /** show that run only */
  readonly run?: number | undefined;
  /** go on after a terminal event, should another run follow */
  readonly followRuns?: boolean;
  readonly address?: Address;
  readonly buffer?: number;
}

/** Decides what to show of one log, what to skip, and what to read again. */
export class Reader {
  /** of the last entry that was dealt with */
  position!: number;
  #fold!: Fold;
  #start!: number; // a position that need not be an entry's
  #unchecked!: Cursor | null;
  readonly #address: Address | undefined;
  readonly #run: number | undefined;
  readonly #followRuns: boolean;
  readonly #limit: number;
  #hidden: number; // nothing is shown up to this position
  #shown: number; // nor up to this offset
  #midlog: boolean;
  #seeking: boolean; // nothing was shown so far
  #state: "reading" | "asking" | "live" | "done" = "reading";
  #buffer: [number, number, Entry][] = [];
  #deaf = false; // unsubscribed, until a read is complete
  #caughtUp = false;
  #asked: [number, boolean] = [0, false]; // the entry in doubt, and whether entries before it are gone
  #known = 0; // that entry, once the record's cuts have been read: it has to come next
  #last: Cursor | null; // what a notice's cursor names
  #terminal: ProcessEvent | null = null; // ends the tail, unless another event follows
  #epoch: number; // the last one shown
  #anchored = false; // whether the read in progress joins what was read before
  #plain = false; // whether a counted event can be shown without further questions
  #began = 0;

  /**
   * Begin behind `cursor`, or show what lies behind `position` (0: the whole log), above `offset`. A `position` in the
   * middle had better lie `WINDOW` events before what is to be shown. Throws: BadPayload for a cursor of another log.
   */
  constructor({ cuts = [], cursor, position = 0, offset = 0, run, followRuns = false, address, buffer = BUFFER }: ReaderOptions) {
    const table = mergeCuts(cuts, []);
    if (cursor) checkCursor(cursor, table);
    this.#address = address;
    this.#run = run;
    this.#followRuns = followRuns;
    this.#limit = buffer;
    this.#hidden = position;
    this.#shown = offset;
    this.#midlog = this.#seeking = !cursor && position > 1;
    this.#last = cursor ?? null;
    this.#epoch = cursor?.epoch ?? 0;
    const before = Math.max(position - 1, 0);
    this.#begin(new Fold(table, { cursor: cursor ?? null, position: before }), cursor ?? null, before);
  }

  #begin(fold: Fold, cursor: Cursor | null, position: number): void {
    this.#fold = fold;
    this.position = cursor ? cursor.position : position;
    this.#start = position;
    this.#unchecked = cursor;
  }

  /** What to do first. */
  start(): Action[] {
    return [{ kind: "subscribe" }, this.#read()];
  }

  /** An entry of the live subject, and the position of the one before it on that subject. Throws: as `first`. */
  live(position: number, previous: number, entry: Entry): Action[] {
    if (this.#state !== "live") return this.#keep(position, previous, entry);
    if (previous === this.position && this.position >= this.#known) return this.#take(position, entry);
    if (position <= this.position) {
      if (this.#unchecked) throw foreignCursor(this.#unchecked); // of a log that is gone, and this one has not come as far
      return [];
    }
    this.#keep(position, previous, entry);
    return [this.#read()];
  }

  /** The next entry of the read in progress. */
  history(position: number, entry: Entry): Action[] {
    if (this.#anchored && position > this.position) return this.#take(position, entry);
    if (this.#state !== "reading") return [];
    if (position > this.position) {
      // What the read begins with joins the start, or else has to be what the cuts were asked for.
      const joined = this.#known ? position === this.#known : this.position === this.#start;
      if (!joined) return this.#ask(position, true);
      this.#anchored = true;
      return this.#take(position, entry);
    }
    if (position === this.position) {
      this.#anchored = true;
      this.#check(position, entry);
    }
    return [];
  }

  /** The read in progress is complete. */
  historyEnd(): Action[] {
    if (this.#state !== "reading") return [];
    if (this.#deaf) {
      this.#deaf = false;
      return [{ kind: "subscribe" }, this.#read()];
    }
    const actions: Action[] = [];
    let hole = false;
    for (const [position, previous, entry] of this.#buffer) {
      if (position <= this.position) continue;
      hole = previous !== this.position || this.position < this.#known;
      if (hole) break;
      actions.push(...this.#take(position, entry));
      if (!this.#is("reading")) return actions;
    }
    if (hole && this.position > this.#began) return [...actions, this.#read()];
    // A read that did not bring what was heard is not repeated at once: a later entry or probe does it.
    this.#buffer = [];
    this.#state = "live";
    return hole ? actions : [...actions, ...this.#settle()];
  }

  /** The read in progress came to nothing: begin it anew. That is never a gap. */
  historyFailed(): Action[] {
    return this.#state === "reading" ? [this.#read()] : [];
  }

  /**
   * The position of the log's first entry (0: none), and then the claim's cuts and epoch (0: no claim).
   * Throws: BadPayload if the cursor turns out to be of another log.
   */
  first(first: number, cuts: readonly Cut[] = [], epoch = 0): Action[] {
    if (this.#state !== "asking") return [];
    const table = mergeCuts(cuts, []);
    const [known, trimmed] = this.#asked;
    this.#known = known;
    this.#plain = false;
    const there = first > 0 && first <= this.position;
    if (this.#unchecked) {
      checkCursor(this.#unchecked, table);
      if (!table.length && there) throw foreignCursor(this.#unchecked);
      this.#unchecked = null;
    }
    if (this.#midlog && !trimmed && there) this.#stepBack(table, epoch, first);
    this.#fold.refresh(table, trimmed);
    return [...this.#gap(), this.#read()];
  }

  /** The position of the subject's last entry: what a quiet reader asks for now and then. */
  last(position: number): Action[] {
    if (this.#state !== "live") return [];
    return position > this.position ? [this.#read()] : this.#settle();
  }

  /** The connection was lost and is back; what was under way is begun anew. */
  reconnected(): Action[] {
    if (this.#state === "asking") return [{ kind: "ask_first" }];
    return this.#state === "live" ? [{ kind: "ask_last" }] : this.historyFailed();
  }

  /** Live entries were lost for want of room, here or in the driver. */
  overflowed(): Action[] {
    if (this.#deaf || this.#state === "done") return [];
    this.#deaf = true;
    this.#buffer = [];
    // A flood is better read from the log first: listening meanwhile would be paying twice.
    return this.#state === "live" ? [{ kind: "unsubscribe" }, this.#read()] : [{ kind: "unsubscribe" }];
  }

  // a method, for the compiler takes a state that was looked at for one that stays
  #is(state: "reading" | "live"): boolean {
    return this.#state === state;
  }

  #keep(position: number, previous: number, entry: Entry): Action[] {
    if (this.#deaf || this.#state === "done") return [];
    this.#buffer.push([position, previous, entry]);
    return this.#buffer.length > this.#limit ? this.overflowed() : [];
  }

  #read(): Order {
    this.#state = "reading";
    this.#anchored = false;
    this.#began = this.position;
    // The entry read last is read again: as long as it is there, nothing behind it was trimmed.
    return { kind: "read", after: this.position === this.#start ? this.position : this.position - 1 };
  }

  #ask(position: number, trimmed: boolean): Action[] {
    this.#state = "asking";
    this.#anchored = false;
    this.#asked = [position, trimmed];
    return [{ kind: "ask_first" }];
  }

  /** Read from further up if what lies behind a start in the middle cannot be told from there. */
  #stepBack(table: readonly Cut[], epoch: number, first: number): void {
    const claiming = !this.#fold.epoch && epoch > Math.max(0, ...table.map((cut) => cut.epoch));
    const cut = cutBefore(table, this.#last === null ? this.#known : this.#last.position);
    const whole = cut !== undefined && cut.position >= first;
    if (!claiming && !(this.#fold.loose && whole)) return;
    if (!this.#seeking && this.#last !== null) {
      this.#hidden = 0;
      this.#shown = this.#last.offset;
    }
    if (cut && whole) {
      this.#begin(new Fold(table, { cursor: cursorAt(cut) }), cursorAt(cut), 0);
      this.#unchecked = null;
    } else {
      this.#begin(new Fold(table, { position: first - 1 }), null, first - 1);
    }
    this.#midlog = false;
    this.#known = 0;
  }

  /** Look at the entry at the cursor's position. */
  #check(position: number, entry: Entry): void {
    const cursor = this.#unchecked;
    this.#unchecked = null;
    if (cursor?.position !== position) return;
    if (entry.epoch !== cursor.epoch || !(entry.type === "mark" || entry.offset === cursor.offset)) throw foreignCursor(cursor);
    if (entry.type === "exited" && this.#wants(entry.run)) this.#terminal = eventOf(entry, position, this.#address);
  }

  #wants(run: number): boolean {
    return this.#run === undefined || this.#run === run;
  }

  /** Deal with the entry that follows the last one dealt with. */
  #take(position: number, entry: Entry): Action[] {
    const verdict = this.#fold.feed(position, entry);
    if (verdict === "counts" && this.#plain && entry.type !== "exited") {
      this.position = position;
      const event = eventOf(entry, position, this.#address);
      this.#last = event;
      return [event];
    }
    if (verdict === "unsure") return this.#ask(position, false);
    this.position = position;
    const actions = this.#gap();
    if (verdict === "cut" || (verdict === "counts" && entry.epoch !== this.#epoch)) actions.push(...this.#takeover(entry));
    if (verdict === "counts") actions.push(...this.#show(eventOf(entry, position, this.#address)));
    return actions;
  }

  #show(event: ProcessEvent): Action[] {
    const visible = event.position > this.#hidden && event.offset > this.#shown;
    const terminal = event.type === "exited";
    this.#last = event;
    this.#terminal = terminal && this.#wants(event.run) ? event : null;
    this.#plain = visible && this.#run === undefined && !terminal;
    this.#seeking = this.#seeking && !visible;
    if (this.#run !== undefined && event.run > this.#run) {
      this.#terminal = null;
      return this.#end(this.#run);
    }
    const actions: Action[] = visible && this.#wants(event.run) ? [event] : [];
    if (this.#terminal === null) return actions;
    if (this.#run === event.run) return [...actions, ...this.#end(event.run)];
    return this.#state === "live" && this.#caughtUp ? [...actions, ...this.#settle()] : actions;
  }

  /** The live edge is reached. */
  #settle(): Action[] {
    const actions: Action[] = [];
    if (!this.#caughtUp) {
      this.#caughtUp = true;
      actions.push(this.#say("caught_up", {}));
    }
    if (this.#terminal) actions.push(...this.#end(this.#terminal.run));
    return actions;
  }

  #end(run: number): Action[] {
    const said: Json = this.#terminal?.data;
    const data = isObject(said) ? { run, status: said.status ?? null, code: said.code ?? null } : { run };
    this.#terminal = null;
    if (!this.#followRuns || this.#run !== undefined) {
      this.#state = "done";
      this.#anchored = false;
      this.#buffer = [];
    }
    return [this.#say("ended", data)];
  }

  #gap(): Action[] {
    const missing = this.#fold.missing;
    this.#fold.missing = null;
    if (!missing || this.#seeking || this.position < this.#hidden || missing[1] <= this.#shown) return [];
    return [this.#say("gap", { from: Math.max(missing[0], this.#shown + 1), to: missing[1] })];
  }

  #takeover(entry: Entry): Action[] {
    const before = this.#epoch;
    this.#epoch = Math.max(entry.epoch, before);
    if (!before || entry.epoch <= before || this.position <= this.#hidden) return [];
    const data: Record<string, Json> = { epoch: entry.epoch, run: entry.run };
    if (entry.type === "mark" && isObject(entry.data) && "node" in entry.data) data.node = entry.data.node;
    return [this.#say("takeover", data)];
  }

  #say(type: NoticeType, data: Record<string, Json>): Notice {
    return notice(type, data, this.#address, this.#last ? cursorText(this.#last) : "");
  }
}
