/** Makes rows to look at out of what a tail says: pure, so that the same items always look the same. */

import { Line, Pen } from "./lines.ts";
import type { Paper, Span } from "./lines.ts";

/** An event or a notice, as the client gives them. */
export interface Item {
  readonly kind: "event" | "notice";
  readonly type: string;
  readonly data: any;
  readonly offset?: number;
  readonly epoch?: number;
  readonly run?: number;
  readonly time?: string;
  readonly cause?: any;
  readonly cursor?: string;
}

interface Base {
  /** stays the same while the row grows */
  readonly key: string;
  /** offsets of the first and the last event in it; 0 for a notice */
  readonly first: number;
  readonly last: number;
  readonly time: string;
  readonly epoch: number;
  readonly run: number;
}

export interface EventRow extends Base {
  readonly kind: "event";
  readonly type: string;
  readonly data: any;
  readonly cause: any;
  /** later progress says more */
  readonly stale?: boolean;
}

/** A line of a program's output. */
export interface LineRow extends Base {
  readonly kind: "line";
  readonly stream: string;
  readonly spans: readonly Span[];
}

/** A text that is, or was, streamed. */
export interface TextRow extends Base {
  readonly kind: "text";
  readonly stream: string;
  readonly text: string;
  /** more of it may come */
  readonly open: boolean;
  /** the end of a text whose beginning is in the row before */
  readonly more: boolean;
}

export interface NoticeRow extends Base {
  readonly kind: "notice";
  readonly type: string;
  readonly data: any;
}

export type Row = EventRow | LineRow | TextRow | NoticeRow;

export const LONGEST_TEXT = 6000; // characters of a streamed text in one row
const BLOCK = 200; // lines of output that a cursor may climb

/** Rows of what was said, in order; `add` takes what comes next. */
export class Fold {
  readonly rows: Row[] = [];
  #last: Item | null = null; // event
  #epoch = 0;
  #run = 0;
  #gapTo = 0;
  #pens = new Map<string, Pen>();
  #lineRows = new Map<Line, number>();
  #block: Line[] = []; // lines of output that nothing else came between
  #texts = new Map<string, number>(); // stream → the row of its open text
  #notices = 0;
  #progress = -1; // the row of the latest

  constructor(items: Iterable<Item> = []) {
    for (const item of items) this.add(item);
  }

  add(item: Item): void {
    if (item.kind === "notice") return this.#notice(item);
    this.#between(item);
    this.#last = item;
    const { type, data } = item;
    const open = isObject(data);
    if (type === "output" && open && ("text" in data || "base64" in data)) return this.#output(item);
    if (type !== "output") this.#block = [];
    if (type === "token" && open) this.#token(item);
    else if (type === "text" && open && typeof data.text === "string") this.#text(item);
    else this.#event(item);
    if (["exited", "started", "restarted", "recovered"].includes(type)) this.#closeAll();
  }

  /** What has to be said between the last event and this one. */
  #between(item: Item): void {
    const expected = Math.max((this.#last?.offset ?? item.offset! - 1) + 1, this.#gapTo + 1);
    if (item.offset! > expected) this.#say("gap", { from: expected, to: item.offset! - 1 }, item);
    // a next run says itself that it begins
    if (this.#epoch && item.epoch! > this.#epoch && item.run === this.#run) this.#say("takeover", { epoch: item.epoch, run: item.run }, item);
    this.#epoch = Math.max(this.#epoch, item.epoch ?? 0);
    this.#run = item.run ?? this.#run;
  }

  #notice(item: Item): void {
    const { type, data } = item;
    if (type === "caught_up" || (type === "ended" && this.#last?.type === "exited")) return;
    if (type === "gap") {
      if (data?.to <= this.#gapTo) return;
      this.#gapTo = data?.to ?? 0;
    }
    if (type === "takeover") {
      if (!this.#epoch || data?.epoch <= this.#epoch) return;
      if (data.run > this.#run) return;
      this.#epoch = data.epoch;
    }
    this.#say(type, data, this.#last ?? item);
  }

  #say(type: string, data: any, near: Item): void {
    this.#block = [];
    for (const pen of this.#pens.values()) pen.lift();
    const key = `n${near.offset ?? 0}.${type}.${JSON.stringify(data ?? "").slice(0, 80)}.${this.#notices++}`;
    this.rows.push({ kind: "notice", key, type, data, first: 0, last: 0, time: near.time ?? "", epoch: near.epoch ?? 0, run: near.run ?? 0 });
  }

  #event(item: Item): void {
    const { type, data, cause } = item;
    const before = this.rows.at(-1);
    const redraws = type === "progress" && before?.kind === "event" && before.type === "progress" && before.epoch === item.epoch;
    if (redraws) this.rows[this.rows.length - 1] = { ...before, last: item.offset!, data };
    else {
      if (type === "progress") this.#outdate();
      this.rows.push({ kind: "event", ...base(item, `e${item.offset}`), type, data, cause });
    }
  }

  /** The progress shown so far is that no more. */
  #outdate(): void {
    const row = this.rows[this.#progress];
    if (row?.kind === "event") this.rows[this.#progress] = { ...row, stale: true };
    this.#progress = this.rows.length;
  }

  #output(item: Item): void {
    const stream = String(item.data.stream ?? "");
    let pen = this.#pens.get(stream);
    if (!pen) this.#pens.set(stream, (pen = new Pen()));
    const line = pen.line;
    // what others said since then stands between: only a line that is drawn over again goes on in its old place
    if (line && this.#lineRows.get(line) !== this.rows.length - 1 && !line.redrawn) pen.lift();
    const paper = new Sheet(this, item, stream);
    pen.write(outputText(item.data), paper);
    paper.settle();
    if (!paper.used) this.#widen(item);
  }

  /** An event that drew nothing is counted to the row before it, or has one of its own. */
  #widen(item: Item): void {
    const at = this.rows.length - 1;
    const row = this.rows[at];
    if (row?.kind === "line") this.rows[at] = { ...row, last: item.offset! };
    else this.rows.push({ kind: "line", ...base(item, `l${item.offset}.0`), stream: String(item.data.stream ?? ""), spans: [] });
  }

  /** For `Sheet` only. */
  _begin(line: Line, item: Item, stream: string, count: number): void {
    this.#lineRows.set(line, this.rows.length);
    this.rows.push({ kind: "line", ...base(item, `l${item.offset}.${count}`), stream, spans: [] });
    this.#block.push(line);
    if (this.#block.length > BLOCK) this.#lineRows.delete(this.#block.shift()!);
  }

  /** For `Sheet` only. */
  _change(line: Line, item: Item): void {
    const at = this.#lineRows.get(line);
    const row = at === undefined ? undefined : this.rows[at];
    if (row?.kind === "line") this.rows[at!] = { ...row, last: Math.max(row.last, item.offset!), spans: line.spans };
  }

  /** For `Sheet` only. */
  _above(count: number): Line | undefined {
    return this.#block.at(-1 - count);
  }

  #token(item: Item): void {
    const stream = String(item.data.stream ?? "");
    const text = typeof item.data.text === "string" ? item.data.text : "";
    const at = this.#texts.get(stream);
    const row = at === undefined ? undefined : this.rows[at];
    if (row?.kind === "text" && row.text.length + text.length <= LONGEST_TEXT) {
      this.rows[at!] = { ...row, text: row.text + text, last: item.offset! };
      return;
    }
    if (row?.kind === "text") this.rows[at!] = { ...row, open: false };
    this.#texts.set(stream, this.rows.length);
    this.rows.push({ kind: "text", ...base(item, `t${item.offset}`), stream, text, open: true, more: row?.kind === "text" });
  }

  /** A text is complete: what it covers is closed, or shown as a whole where its tokens were not read. */
  #text(item: Item): void {
    const { first = 0, last = 0, text } = item.data;
    const stream = String(item.data.stream ?? "");
    const at = this.#texts.get(stream);
    const row = at === undefined ? undefined : this.rows[at];
    this.#texts.delete(stream);
    if (row?.kind !== "text" || row.last < first || row.first > last) {
      const parts = pieces(text);
      parts.forEach((part, n) =>
        this.rows.push({ kind: "text", ...base(item, `t${item.offset}.${n}`), stream, text: part, open: false, more: n > 0 }),
      );
      return;
    }
    const headless = row.first > first && !row.more;
    this.rows[at!] = { ...row, last: item.offset!, open: false, text: headless ? text : row.text };
  }

  #closeAll(): void {
    for (const at of this.#texts.values()) {
      const row = this.rows[at];
      if (row?.kind === "text") this.rows[at] = { ...row, open: false };
    }
    this.#texts.clear();
    for (const pen of this.#pens.values()) pen.lift();
  }
}

/** Where a pen writes the output of one event. */
class Sheet implements Paper {
  used = false;
  readonly #changed = new Set<Line>();
  #begun = 0;
  #fold: Fold;
  #item: Item;
  #stream: string;

  constructor(fold: Fold, item: Item, stream: string) {
    this.#fold = fold;
    this.#item = item;
    this.#stream = stream;
  }

  begin(line: Line): void {
    this.used = true;
    this.settle();
    this.#fold._begin(line, this.#item, this.#stream, this.#begun++);
  }

  change(line: Line): void {
    this.used = true;
    this.#changed.add(line);
  }

  /** Show what has changed: once, however often it was drawn over. */
  settle(): void {
    for (const line of this.#changed) this.#fold._change(line, this.#item);
    this.#changed.clear();
  }

  above(count: number): Line | undefined {
    return this.#fold._above(count);
  }
}

function base(item: Item, key: string): Base {
  const { offset = 0, time = "", epoch = 0, run = 0 } = item;
  return { key, first: offset, last: offset, time, epoch, run };
}

function pieces(text: string): string[] {
  const parts: string[] = [];
  for (let from = 0; from < text.length || !parts.length; from += LONGEST_TEXT) parts.push(text.slice(from, from + LONGEST_TEXT));
  return parts;
}

const decoder = new TextDecoder();

/** What an `output` event holds, as text. */
export function outputText(data: { readonly text?: unknown; readonly base64?: unknown }): string {
  if (typeof data.base64 !== "string") return String(data.text ?? "");
  try {
    return decoder.decode(Uint8Array.from(atob(data.base64), (c) => c.charCodeAt(0)));
  } catch {
    return "";
  }
}

export function isObject(value: unknown): value is Record<string, any> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The questions of a log that nobody has answered, by their names: the rows that ask them. */
export function openQuestions(items: Iterable<Item>): Map<string, Item> {
  const open = new Map<string, Item>();
  for (const item of items) {
    if (item.type === "exited") open.clear();
    if (!isObject(item.data)) continue;
    if (item.type === "asked") open.set(String(item.data.ask), item);
    else if (item.type === "answered") open.delete(String(item.data.ask));
  }
  return open;
}
