/**
 * Which entries of a log count. Protocol: sections 2.1 and 4. The same state machine as
 * `natsproc/protocol/ownership.py`, checked by the same vectors; its comments are there.
 */

import { BadPayload } from "./errors.js";
import type { Cursor, Entry } from "./messages.js";
import type { Claim, Cut } from "./records.js";

/** So many entries of one process, at most, may be stored before one that was sent earlier. */
export const WINDOW = 256;

const SURE = -1;

/**
 * What an entry is to whoever reads the log in order. `hole`: ahead of the next one, which comes again behind it.
 * `unsure`: not decided; `refresh` with the record's cuts, then feed the same entry again.
 */
export type Verdict = "counts" | "cut" | "void" | "repeat" | "hole" | "unreadable" | "unsure";

/** Decides which entries of a log count, as they are fed in the order of their positions. */
export class Fold {
  epoch = 0;
  /** null: the first event that is not void sets it */
  nextOffset: number | null = 1;
  /** offsets found to be lost; whoever reads it resets it */
  missing: [number, number] | null = null;
  #cuts: Cut[];
  #base = 0; // the event that set nextOffset, which might have been a repeat or ahead of others
  #floor = 0; // while nextOffset is null: nothing below is new; 0: nothing was expected either
  #doubt: number | null = 1; // the value of nextOffset that nothing has confirmed so far
  #placed = false; // whether `epoch` is that of the place in the log
  #since: number; // everything behind this position was fed

  /** Begin behind `cursor`, or else behind `position`, of which nothing is known but the cuts. */
  constructor(cuts: readonly Cut[] = [], { cursor = null, position = 0 }: { cursor?: Cursor | null; position?: number } = {}) {
    this.#cuts = mergeCuts(cuts, []);
    this.#since = position;
    if (cursor) {
      this.epoch = cursor.epoch;
      this.nextOffset = cursor.offset + 1;
      this.#doubt = SURE;
      this.#placed = true;
      this.#since = cursor.position;
    } else if (position) {
      this.nextOffset = this.#doubt = null;
    }
  }

  /** The cuts it was given and those it has found, in order. */
  get cuts(): readonly Cut[] {
    return this.#cuts;
  }

  /** Whether it began in the middle so lately that repeats may have misled it. */
  get loose(): boolean {
    return this.#base > 0 && this.nextOffset !== null && this.nextOffset - this.#base < WINDOW;
  }

  /** Say what the entry at that position is. */
  feed(position: number, entry: Entry): Verdict {
    if (entry.offset === this.nextOffset && entry.epoch === this.epoch) {
      this.nextOffset = entry.offset + 1;
      return "counts";
    }
    if (!entry.epoch) return "unreadable";
    if (!this.#placed) {
      if (this.nextOffset === this.#doubt && !this.#cutAt(position, entry)) return "unsure";
      this.#place(position, entry);
    }
    return entry.type === "mark" ? this.#mark(position, entry) : this.#event(entry);
  }

  /** Take the record's cuts, read after the entry in doubt; `trimmed`: entries before it are gone. */
  refresh(cuts: readonly Cut[], trimmed = false): void {
    const table = mergeCuts(cuts, []);
    const cut = table.findLast((c) => c.epoch === this.epoch);
    this.#cuts = mergeCuts(table, this.#cuts);
    this.#doubt = SURE;
    this.#placed = false;
    if (!trimmed && cut && cut.position > this.#since) this.#expect(cut.offset);
    else if (trimmed || this.loose || (!cut && this.nextOffset === 1)) this.#expectAny();
  }

  /** What the table says of this entry, if that is the mark which opens its epoch. */
  #cutAt(position: number, entry: Entry): Cut | undefined {
    if (entry.type !== "mark") return undefined;
    return this.#cuts.find((cut) => cut.position === position && cut.epoch === entry.epoch);
  }

  /** Find the epoch of a place that was not reached entry by entry. */
  #place(position: number, entry: Entry): void {
    const cut = cutBefore(this.#cuts, position);
    if (cut && cut.epoch > this.epoch) {
      this.epoch = cut.epoch;
      this.#expectAny();
    } else if (!this.epoch && entry.type !== "mark") {
      this.epoch = entry.epoch;
    }
    this.#since = position - 1;
    this.#placed = true;
  }

  #mark(position: number, entry: Entry): Verdict {
    if (entry.epoch <= this.epoch) return "void";
    if (this.#cutAt(position, entry)) {
      const first = this.#cuts.find((cut) => cut.position >= position)!.offset;
      if (this.loose && first !== this.nextOffset) return "unsure";
      this.#expect(first);
      this.#doubt = SURE;
      this.#base = 0;
    } else {
      const found = { epoch: entry.epoch, run: entry.run, offset: this.nextOffset ?? 0, position };
      this.#cuts = mergeCuts(this.#cuts, [found]);
      this.#doubt = this.nextOffset;
    }
    this.epoch = entry.epoch;
    this.#placed = true;
    return "cut";
  }

  #event(entry: Entry): Verdict {
    const doubtful = this.nextOffset === this.#doubt;
    if (entry.epoch !== this.epoch) return doubtful && entry.epoch > this.epoch ? "unsure" : "void";
    if (this.nextOffset === null) {
      if (doubtful) return "unsure";
      if (entry.offset < this.#floor) return "repeat";
      this.#expect(entry.offset);
      this.nextOffset = entry.offset + 1;
      this.#base = entry.offset;
      return "counts";
    }
    if (this.#base <= entry.offset && entry.offset < this.nextOffset) return "repeat";
    if (doubtful || this.loose) return "unsure";
    return entry.offset > this.nextOffset ? "hole" : "repeat";
  }

  /** From now on `offset` is the next one, unless a later one is already. */
  #expect(offset: number): void {
    const expected = this.nextOffset ?? this.#floor;
    if (offset > expected && expected > 0) this.missing = [expected, offset - 1];
    const next = Math.max(offset, expected);
    this.nextOffset = next;
    const known = this.#cuts.findLastIndex((cut) => cut.offset);
    this.#cuts = this.#cuts.map((cut, index) => (index > known ? { ...cut, offset: next } : cut));
  }

  /** From now on the first event that is not void sets the next offset. */
  #expectAny(): void {
    if (this.nextOffset !== null) this.#floor = this.nextOffset;
    this.nextOffset = null;
  }
}

/** Both tables as one, in order; what `known` says of an epoch stands. */
export function mergeCuts(known: readonly Cut[], found: readonly Cut[]): Cut[] {
  const table = new Map([...found, ...known].map((cut) => [cut.epoch, cut]));
  return [...table.values()].sort((a, b) => a.position - b.position);
}

/** The last cut that lies before that position; `cuts` are in order. */
export function cutBefore(cuts: readonly Cut[], position: number): Cut | undefined {
  return cuts.findLast((cut) => cut.position < position);
}

/** The cursor from which a reader begins with the first event of that epoch. */
export function cursorAt(cut: Cut): Cursor {
  return { ...cut, offset: cut.offset - 1 };
}

/** Make sure that the cursor can be of the log with these cuts. Throws: BadPayload. */
export function checkCursor(cursor: Cursor, cuts: readonly Cut[]): void {
  const cut = cutBefore(cuts, cursor.position + 1);
  const first = cuts[0];
  const fits = cut
    ? cut.epoch === cursor.epoch && cut.offset <= cursor.offset + 1
    : !first || (cursor.epoch < first.epoch && cursor.offset < first.offset);
  if (!fits) throw foreignCursor(cursor);
}

/**
 * Make sure that the cursor can be of the log with that claim, whose last entry has position `last` (0: none left),
 * both as the leader has them. Throws: BadPayload.
 */
export function checkLog(cursor: Cursor, claim: Claim | null, last: number): void {
  const ended = claim?.ended && !last ? claim.last : 0;
  const foreign = claim !== null && (!claim.cuts.length || cursor.epoch < claim.born || (0 < ended && ended < cursor.offset));
  if (foreign || (0 < last && last < cursor.position)) throw foreignCursor(cursor);
}

/** The error for a cursor that was made from another log. */
export function foreignCursor(cursor: Cursor): BadPayload {
  return new BadPayload(
    `the cursor (epoch ${cursor.epoch}, offset ${cursor.offset}) belongs to another log, not to this process's: ` +
      "take one from a tail of this process, or begin without",
  );
}
