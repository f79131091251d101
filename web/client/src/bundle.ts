/** Many entries in one message of a gate's answer, and an answer that is too large for one. Protocol: section 9. */

import { BadPayload } from "./errors.js";
import { decodeObject, isObject } from "./messages.js";

/** A header: of a question that takes bundles and parts, and of an answer that is a bundle. */
export const BUNDLE = "Natsproc-Bundle";
/** A header of a part of an answer: which, and of how many. */
export const PART = "Natsproc-Part";

/** One message of a stream. */
export interface Stored {
  readonly position: number;
  readonly payload: Uint8Array;
  /** the server's clock */
  readonly time: string;
  readonly subject: string;
  /** whether it says that a key holds nothing any more */
  readonly marker: boolean;
}

/** Whether an entry's headers say that a key holds nothing any more. */
export const isMarker = (get: (name: string) => string | undefined): boolean => Boolean(get("Nats-Marker-Reason") || get("KV-Operation"));

/** Read a bundle: the position that it comes after, and its entries. Throws: BadPayload. */
export function unbundle(payload: Uint8Array): { after: number; entries: Stored[] } {
  const end = payload.indexOf(10);
  const head = decodeObject(payload.subarray(0, Math.max(end, 0)), "bundle");
  const { after } = head;
  if (!Number.isInteger(after) || !Array.isArray(head.entries) || !head.entries.length) throw new BadPayload("that is no bundle");
  const entries: Stored[] = [];
  let [before, start, named] = [after, end + 1, ""];
  for (const row of head.entries) {
    const [position, time, size, subject = named, more = {}] = Array.isArray(row) ? row : [];
    const known = [position, size].every(Number.isInteger) && [time, subject].every((text) => typeof text === "string");
    if (!known || position <= before || size < 0 || !subject || !isObject(more)) throw new BadPayload(`no entry of a bundle: ${position}`);
    const marker = isMarker((name) => more[name]);
    entries.push({ position, payload: payload.subarray(start, start + size), time, subject, marker });
    [before, start, named] = [position, start + size, subject];
  }
  if (start !== payload.length) throw new BadPayload("a bundle has more or less than it says");
  return { after, entries };
}

/** Puts an answer together again. */
export class Parts {
  #parts: Uint8Array[] = [];

  /** Take the next part; gives the whole with the last one. Throws: BadPayload, if one is missing. */
  join(part: string, payload: Uint8Array): Uint8Array | null {
    this.#parts.push(payload);
    const [number, count] = part.split("/");
    if (number !== String(this.#parts.length)) throw new BadPayload(`part ${number} of ${count} came as the ${this.#parts.length}th`);
    if (number !== count) return null;
    const whole = new Uint8Array(this.#parts.reduce((size, one) => size + one.length, 0));
    let start = 0;
    for (const one of this.#parts) {
      whole.set(one, start);
      start += one.length;
    }
    this.#parts = [];
    return whole;
  }
}
