/** Streamed texts as they grow, folded out of `token` and `text` events. */

import type { ProcessEvent } from "natsproc";

export interface StreamedText {
  /** one of its own for each text, whatever its stream */
  readonly key: string;
  readonly stream: string;
  readonly text: string;
  /** nothing is added to it any more */
  readonly done: boolean;
  /** of its first piece */
  readonly offset: number;
  /** the message that it answers, if any */
  readonly cause: string | null;
}

const ENDS = new Set(["turn_ended", "recovered", "restarted", "exited"]);

export class Texts {
  #texts: StreamedText[] = [];
  readonly #open = new Map<string, string>(); // the key of the text that grows, by stream

  constructor(private readonly limit: number) {}

  get shown(): readonly StreamedText[] {
    return this.#texts.slice();
  }

  take(event: ProcessEvent): void {
    if (ENDS.has(event.type)) return this.#closeAll(event);
    if (event.type !== "token" && event.type !== "text") return;
    const { stream, text } = (event.data ?? {}) as { stream?: unknown; text?: unknown };
    if (typeof stream !== "string" || typeof text !== "string") return;
    if (event.type === "token") this.#grow(event, stream, text);
    else this.#close(event, stream, text);
  }

  #grow(event: ProcessEvent, stream: string, piece: string): void {
    const at = this.#at(this.#open.get(stream));
    const old = this.#texts[at];
    if (old) this.#texts[at] = { ...old, text: old.text + piece };
    else this.#begin(event, stream, piece, event.offset);
  }

  /** The closing event has the whole text, also where its beginning was not read. */
  #close(event: ProcessEvent, stream: string, text: string): void {
    const at = this.#at(this.#open.get(stream));
    const old = this.#texts[at];
    if (old) this.#texts[at] = { ...old, text, done: true };
    else this.#begin(event, stream, text, Number(event.data.first), true);
    this.#open.delete(stream);
  }

  #begin({ cause }: ProcessEvent, stream: string, text: string, offset: number, done = false): void {
    const key = `${stream}:${offset}`;
    this.#texts.push({ key, stream, text, done, offset, cause });
    if (!done) this.#open.set(stream, key);
    if (this.#texts.length > this.limit) this.#texts.shift();
  }

  /** A text of a turn that is over, or of an owner that is gone, does not grow any more. */
  #closeAll({ type, cause }: ProcessEvent): void {
    for (const [stream, key] of this.#open) {
      const at = this.#at(key);
      const old = this.#texts[at];
      if (old && type === "turn_ended" && old.cause !== cause) continue;
      if (old) this.#texts[at] = { ...old, done: true };
      this.#open.delete(stream);
    }
  }

  #at(key: string | undefined): number {
    return key === undefined ? -1 : this.#texts.findLastIndex((each) => each.key === key);
  }
}
