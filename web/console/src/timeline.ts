/**
 * A window on one process's log: the items in it and the rows they make. It is read at both ends as somebody looks
 * there, and bounded: what is far from where they look is let go, and read again from the log when it is needed.
 */

import { signal } from "@preact/signals";
import { AlreadyEnded, NoSuchProcess } from "natsproc";
import type { Item as ClientItem, ProcessHandle, Tail } from "natsproc";

import { Fold } from "./fold.ts";
import type { Item, Row } from "./fold.ts";
import { sentence } from "./session.ts";

export const PAGE = 500; // events that are read at once when scrolling back
export const MOST = 6000; // items in the window
const AT_ONCE = 400; // items taken before the page may draw
const CAUSED = new Set(["received", "answered", "refused", "interrupted", "paused", "resumed", "cancelled", "killed"]);

/** `absent`: nothing has ever run under that name. */
export type Standing = "reading" | "live" | "ended" | "failed" | "absent";

export class Timeline {
  /** What is to be seen, in order. A new array whenever it changes. */
  readonly rows = signal<readonly Row[]>([]);
  /** how the end of the log is followed */
  readonly standing = signal<Standing>("reading");
  /** events that came while the window's end was let go, or nobody looked there */
  readonly unseen = signal(0);
  readonly atStart = signal(false);
  readonly reading = signal(false); // backwards
  readonly trouble = signal("");
  /** whether the end is looked at, and stays in sight */
  readonly following = signal(true);
  /** events by the command or message that led to them */
  readonly causes = new Map<string, Item>();

  #items: Item[] = [];
  #fold = new Fold();
  #tail: Tail | null = null;
  #stop = new AbortController();
  #wake: (() => void) | null = null;
  #drawing = 0;
  #closed = false;
  #backwards: Promise<void> | null = null;
  #pinned = new Map<string, string>();

  readonly handle: ProcessHandle;

  constructor(handle: ProcessHandle, from: "end" | "start" = "end") {
    this.handle = handle;
    if (from === "end") void this.#follow({ n: PAGE });
    else this.toStart();
  }

  close(): void {
    this.#closed = true;
    this.#stop.abort();
    cancelAnimationFrame(this.#drawing);
    this.#wake?.();
  }

  /** The items in the window, in order. */
  get items(): readonly Item[] {
    return this.#items;
  }

  get first(): number {
    return this.#items.find((item) => item.kind === "event")?.offset ?? 0;
  }

  get last(): Item | undefined {
    return this.#items.findLast((item) => item.kind === "event");
  }

  /** Read it from its first event on. */
  toStart(): void {
    this.following.value = false;
    this.#begin({ run: "all" });
    this.atStart.value = true;
  }

  /** Go to the end, and follow it. */
  toEnd(): void {
    this.following.value = true;
    if (this.#wholeEnd) {
      this.unseen.value = 0;
      return;
    }
    this.#begin({ n: PAGE });
  }

  /** A run of it begins, the first one or one after that which ended: follow that. */
  again(): void {
    if (this.standing.value === "absent") return this.#begin({ n: PAGE });
    if (this.standing.value !== "ended") return;
    const cursor = this.last?.cursor;
    this.standing.value = "reading";
    void this.#follow(cursor ? { after: cursor } : { n: PAGE });
  }

  /** Somebody looks at the end, or does not any more. */
  follow(yes: boolean): void {
    if (yes && !this.#wholeEnd) return this.more();
    if (yes === this.following.value) return;
    this.following.value = yes;
    if (!yes) return;
    this.unseen.value = 0;
    this.more();
  }

  /** Whether the window's end is that of the log. */
  get #wholeEnd(): boolean {
    return this.standing.value === "live" || this.standing.value === "ended";
  }

  /** Somebody is near the window's end: read on, if it was let go. */
  more(): void {
    this.#wake?.();
  }

  /** Somebody is near the window's start: read what was before. */
  earlier(): Promise<void> {
    if (this.#closed || this.atStart.value || !this.first) return Promise.resolve();
    this.#backwards ??= this.#earlier().finally(() => (this.#backwards = null));
    return this.#backwards;
  }

  async #earlier(): Promise<void> {
    const first = this.first;
    const mine = this.#stop;
    this.reading.value = true;
    try {
      const page = first > 1 ? await this.handle.before(first, PAGE) : [];
      if (mine !== this.#stop || this.#closed) return;
      if (!page.length) {
        this.atStart.value = true;
        if (first > 1) page.unshift({ kind: "notice", type: "gap", data: { from: 1, to: first - 1 } } as never);
      }
      this.#prepend(page as unknown as Item[]);
    } catch (error) {
      if (mine === this.#stop) this.trouble.value = sentence(error);
    } finally {
      this.reading.value = false;
    }
  }

  #prepend(page: readonly Item[]): void {
    if (!page.length) return;
    const held = this.#fold.rows.find((row) => row.first > 0);
    this.#items = [...page, ...this.#items];
    const excess = this.#items.length - MOST;
    if (excess > 0 && !this.following.value) {
      // the end is far away: it is read again when somebody comes there
      this.#items.length = MOST;
      this.#restart({ after: this.last!.cursor! }, true);
    }
    this.#refold(held);
  }

  /** Make the rows anew; the row that was looked at keeps its name. */
  #refold(held?: Row): void {
    this.#fold = new Fold(this.#items);
    if (held) {
      const same = this.#fold.rows.find((row) => row.first <= held.first && held.first <= row.last && row.kind === held.kind);
      if (same && same.key !== held.key) this.#pinned.set(same.key, held.key);
    }
    this.#draw();
  }

  #begin(how: Parameters<ProcessHandle["tail"]>[0]): void {
    this.#items = [];
    this.#fold = new Fold();
    this.#pinned.clear();
    this.atStart.value = false;
    this.unseen.value = 0;
    this.trouble.value = "";
    this.standing.value = "reading";
    this.#restart(how, false);
    this.#draw();
  }

  #restart(how: Parameters<ProcessHandle["tail"]>[0], lazy: boolean): void {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#wake?.();
    this.standing.value = "reading";
    void this.#follow(how, lazy);
  }

  async #follow(how: Parameters<ProcessHandle["tail"]>[0], lazy = false): Promise<void> {
    const { signal } = this.#stop;
    const mine = this.handle.tail({ ...how, signal });
    this.#tail = mine;
    try {
      if (lazy) await this.#wanted(signal, true);
      for (let taken = 1; !signal.aborted; taken++) {
        if (!this.#hasRoom()) await this.#wanted(signal);
        if (signal.aborted) return;
        const { done, value } = await mine.next();
        if (signal.aborted) return;
        if (done) break;
        this.#add(value);
        if (taken % AT_ONCE === 0) await drawn();
      }
      if (!signal.aborted) this.standing.value = "ended";
    } catch (error) {
      if (signal.aborted) return;
      const absent = error instanceof NoSuchProcess;
      this.standing.value = absent ? "absent" : "failed";
      this.trouble.value = absent
        ? "Nothing has run here by this name. Once it does, it is shown."
        : error instanceof AlreadyEnded ? "Nothing of it is stored any more." : sentence(error);
    } finally {
      if (this.#tail === mine) this.#tail = null;
    }
  }

  #hasRoom(): boolean {
    return this.following.value || this.#items.length < MOST;
  }

  /** Wait until somebody looks at the end of the window. */
  #wanted(signal: AbortSignal, always = false): Promise<void> {
    if (signal.aborted || (!always && this.#hasRoom())) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        if (!signal.aborted) this.#release();
        resolve();
      };
    });
  }

  /** Make room at the end by letting go of the beginning. */
  #release(): void {
    const excess = this.#items.length - Math.floor(MOST * 0.75);
    if (excess <= 0) return;
    this.#items = this.#items.slice(excess);
    this.atStart.value = false;
    this.#refold();
  }

  #add(item: ClientItem): void {
    if (item.type === "caught_up" && item.kind === "notice") {
      this.standing.value = "live";
    } else {
      this.#items.push(item as unknown as Item);
      if (item.kind === "event" && typeof item.cause === "string" && CAUSED.has(item.type)) this.#caused(item.cause, item as unknown as Item);
      this.#fold.add(item as unknown as Item);
      if (!this.following.value && item.kind === "event" && this.standing.value === "live") this.unseen.value++;
      if (this.#items.length > MOST && this.following.value) this.#release();
    }
    this.#draw();
  }

  #caused(cause: string, item: Item): void {
    this.causes.set(cause, item);
    if (this.causes.size > MOST) this.causes.delete(this.causes.keys().next().value!);
  }

  #draw(): void {
    if (this.#drawing || this.#closed) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      this.rows.value = this.#named();
    });
  }

  #named(): Row[] {
    if (!this.#pinned.size) return this.#fold.rows.slice();
    return this.#fold.rows.map((row) => (this.#pinned.has(row.key) ? { ...row, key: this.#pinned.get(row.key)! } : row));
  }
}

/** Once the page had time to draw, which a hidden one never needs. */
function drawn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
