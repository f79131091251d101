/**
 * Shows a late joiner one event instead of five thousand: streamed text that is complete, without its tokens.
 * As `natsproc/protocol/compact.py`. Protocol: section 2.5.
 */

import { isObject } from "./messages.js";
import type { Item, ProcessEvent } from "./messages.js";

/** Events and notices kept; above that they are let go as they are. */
const LIMIT = 10_000;

/** An item in its place: `waiting` is a token whose closing event may come, `null` is left out. */
interface Held {
  item: Item | null;
  waiting: boolean;
}

/** A filter between a reader and whoever shows what it says. */
export class Compact {
  #held: Held[] = [];
  #tokens = new Map<string, Held[]>(); // by stream, in order
  #live = false;

  constructor(private readonly limit = LIMIT) {}

  /** Take what the reader said next; returns what is to be shown now, in order. */
  feed(item: Item): Item[] {
    if (this.#live) return [item];
    if (item.kind === "notice") {
      if (item.type === "caught_up" || item.type === "ended") {
        this.#live = true;
        return [...this.flush(), item];
      }
    } else {
      const stream = streamOf(item);
      if (item.type === "token" && stream !== null) return this.#wait(item, stream);
      if (item.type === "text") this.#close(item, stream);
      else if (!this.#held.length) return [item];
    }
    this.#held.push({ item, waiting: false });
    return this.#held.length > this.limit ? this.flush() : this.#ready();
  }

  /** Let go of all that waits, as it is. */
  flush(): Item[] {
    const items = this.#held.flatMap(({ item }) => item ?? []);
    this.#held = [];
    this.#tokens.clear();
    return items;
  }

  #wait(item: ProcessEvent, stream: string): Item[] {
    const held = { item, waiting: true };
    this.#held.push(held);
    const tokens = this.#tokens.get(stream);
    if (tokens) tokens.push(held);
    else this.#tokens.set(stream, [held]);
    return this.#held.length > this.limit ? this.flush() : [];
  }

  /** Leave out the tokens that `text` covers; older ones of its stream will not be closed any more. */
  #close(text: ProcessEvent, stream: string | null): void {
    if (stream === null) return;
    const { first, last } = text.data;
    for (const held of this.#tokens.get(stream) ?? []) {
      held.waiting = false;
      const offset = (held.item as ProcessEvent).offset;
      if (Number.isInteger(first) && Number.isInteger(last) && first <= offset && offset <= last) held.item = null;
    }
    this.#tokens.delete(stream);
  }

  /** What no token holds up any longer. */
  #ready(): Item[] {
    const first = this.#held.findIndex((held) => held.waiting);
    return this.#held.splice(0, first < 0 ? this.#held.length : first).flatMap(({ item }) => item ?? []);
  }
}

/** The name of the stream that a token or text is of, if it is one of ours. */
function streamOf(event: ProcessEvent): string | null {
  const name: unknown = isObject(event.data) ? event.data.stream : null;
  return typeof name === "string" ? name : null;
}
