/** A run that has ended, again: by the times of its events, at any speed. */

import { signal } from "@preact/signals";
import type { ProcessHandle } from "natsproc";

import { Fold } from "./fold.ts";
import type { Item, Row } from "./fold.ts";
import { indexAt, timesOf } from "./reel.ts";
import { sentence } from "./session.ts";

const MOST = 50_000; // events that are held
const TICK = 40; // milliseconds
const AT_ONCE = 1000;

export const SPEEDS = [0.5, 1, 2, 5, 10, 100] as const;

export class Replay {
  readonly rows = signal<readonly Row[]>([]);
  readonly following = signal(true);
  readonly loading = signal(true);
  readonly trouble = signal("");
  /** seconds since the first event */
  readonly at = signal(0);
  /** seconds from the first event to the last */
  readonly length = signal(0);
  readonly playing = signal(false);
  readonly speed = signal<number>(1);
  /** whether there is more of it than is held */
  readonly cut = signal(false);

  #items: Item[] = [];
  #times: number[] = []; // seconds since the first, never falling
  #fold = new Fold();
  #shown = 0; // items in the fold
  #timer: ReturnType<typeof setInterval> | undefined;
  #stop = new AbortController();
  #last = 0;

  constructor(handle: ProcessHandle) {
    void this.#load(handle);
  }

  close(): void {
    this.#stop.abort();
    clearInterval(this.#timer);
  }

  async #load(handle: ProcessHandle): Promise<void> {
    try {
      let taken = 0;
      for await (const item of handle.tail({ follow: false, announce: false, signal: this.#stop.signal })) {
        if (item.kind === "event") this.#items.push(item as unknown as Item);
        if (++taken % AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve, 0));
        if (this.#items.length < MOST) continue;
        this.cut.value = true;
        break;
      }
    } catch (error) {
      this.trouble.value = sentence(error);
    }
    if (this.#stop.signal.aborted) return;
    this.#times = timesOf(this.#items);
    this.length.value = this.#times.at(-1) ?? 0;
    this.loading.value = false;
    this.seek(0);
    this.play();
  }

  play(): void {
    if (this.loading.value) return;
    if (this.at.value >= this.length.value) this.seek(0);
    this.playing.value = true;
    this.#last = performance.now();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), TICK);
  }

  pause(): void {
    this.playing.value = false;
    clearInterval(this.#timer);
  }

  /** Go to the moment of the next event, over however long a silence. */
  skip(): void {
    const next = this.#times[this.#shown];
    if (next !== undefined) this.seek(next);
  }

  /** Show what was there so many seconds after the first event. */
  seek(seconds: number): void {
    this.at.value = Math.min(this.length.value, Math.max(0, seconds));
    const upTo = indexAt(this.#times, this.at.value);
    if (upTo < this.#shown) {
      this.#fold = new Fold();
      this.#shown = 0;
    }
    const before = this.#shown;
    for (; this.#shown < upTo; this.#shown++) this.#fold.add(this.#items[this.#shown]!);
    if (this.#shown !== before || !this.rows.value.length) this.rows.value = this.#fold.rows.slice();
  }

  follow(yes: boolean): void {
    this.following.value = yes;
  }

  more(): void {}

  earlier(): Promise<void> {
    return Promise.resolve();
  }

  #tick(): void {
    const now = performance.now();
    this.seek(this.at.value + ((now - this.#last) / 1000) * this.speed.value);
    this.#last = now;
    if (this.at.value >= this.length.value) this.pause();
  }
}
