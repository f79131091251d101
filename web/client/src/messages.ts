/** What goes over the wire. Protocol: sections 2, 3 and 5. Unknown fields are ignored, never an error. */

import { BadPayload } from "./errors.js";
import type { Address } from "./names.js";

/** Anything that JSON can say: whoever reads it knows what it is. */
export type Json = any;

type Fields = Record<string, Json>;

const DEEP = 200; // levels that every language reads
const LONG = /\d{4301}/; // digits that not every language does
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Write JSON as bytes. Throws: BadPayload for what JSON cannot say. */
export function encode(value: Json, what = "data"): Uint8Array {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
    if (text !== undefined) parseJson(text);
  } catch (error) {
    throw new BadPayload(`${what} cannot be sent as JSON: ${(error as Error).message}`);
  }
  if (text === undefined) throw new BadPayload(`${what} cannot be sent as JSON: it is ${typeof value}`);
  return encoder.encode(text);
}

/** Read JSON, as strictly as every other reader does. Throws: BadPayload. */
export function decode(payload: Uint8Array, what = "message"): Json {
  try {
    return parseJson(decoder.decode(payload));
  } catch (error) {
    throw new BadPayload(`${what} is not JSON: ${(error as Error).message}`);
  }
}

/** Read a JSON object. Throws: BadPayload. */
export function decodeObject(payload: Uint8Array, what = "message"): Fields {
  const value = decode(payload, what);
  if (!isObject(value)) throw new BadPayload(`${what} is not a JSON object`);
  return value;
}

export function isObject(value: Json): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JavaScript reads halves of surrogate pairs and any depth; others don't, and all have to agree on what counts. */
function parseJson(text: string): Json {
  const value = JSON.parse(text);
  if (/\\u[dD][89a-fA-F]/.test(text)) {
    JSON.parse(text, (key, part: Json) => {
      if (isBroken(key) || (typeof part === "string" && isBroken(part))) throw new Error("half a character");
      return part;
    });
  }
  if (LONG.test(text) && LONG.test(text.replace(/"([^"\\]+|\\.)*"/g, ""))) throw new Error("too long a number");
  if (isTooDeep(value, DEEP)) throw new Error("too deep");
  return value;
}

function isBroken(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

/** Whether there is anything inside of what is nested that deep. */
function isTooDeep(value: Json, left: number): boolean {
  return typeof value === "object" && value !== null && Object.values(value).some((part) => left <= 0 || isTooDeep(part, left - 1));
}

export function toBase64(text: string): string {
  const bytes = encoder.encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Read base64, URL-safe or not, with or without padding. Throws: an error of the runtime. */
export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
}

/** From where a tail goes on: the entry shown last. An event is one itself. Protocol: section 2.3. */
export interface Cursor {
  readonly position: number;
  readonly epoch: number;
  readonly run: number;
  readonly offset: number;
}

/** The text of a cursor; it is opaque to everyone else. */
export function cursorText({ position, epoch, run, offset }: Cursor): string {
  return toBase64(`1.${position}.${epoch}.${run}.${offset}`);
}

/** Read such a text. Throws: BadPayload. */
export function parseCursor(text: string): Cursor {
  let raw = "";
  try {
    raw = new TextDecoder().decode(fromBase64(text));
  } catch {
    // said below
  }
  const [, position = "", epoch = "", run = "", offset = ""] = /^1\.(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(raw) ?? [];
  if (!position) throw new BadPayload(`${JSON.stringify(text.slice(0, 40))} is not a cursor`);
  return { position: +position, epoch: +epoch, run: +run, offset: +offset };
}

/** One stored message on an events subject, before anyone decided whether it counts. A mark has offset 0. */
export interface Entry {
  readonly epoch: number;
  readonly run: number;
  /** 1, 2, 3 … without holes, across epochs and runs */
  readonly offset: number;
  /** the owner's clock, RFC 3339 */
  readonly time: string;
  readonly type: string;
  readonly data: Json;
  /** id of the command or message that led to it */
  readonly cause: Json;
}

export const UNREADABLE: Entry = { epoch: 0, run: 0, offset: 0, time: "", type: "unreadable", data: null, cause: null };

/** Read an entry; garbage becomes one that cannot count, never an error. */
export function parseEntry(payload: Uint8Array): Entry {
  let raw: Fields;
  try {
    raw = decodeObject(payload);
  } catch {
    return UNREADABLE;
  }
  const { epoch, run, offset = 0, time = "", type, data = null, cause = null } = raw;
  // beyond 2^53 numbers would not be the same for all: nobody gets there
  const ours = [epoch, run, offset].every(Number.isSafeInteger) && epoch > 0 && offset >= 0 && typeof type === "string";
  if (!ours || (type === "mark") !== (offset === 0)) return UNREADABLE;
  return { epoch, run, offset, time: String(time), type, data, cause };
}

/** One entry of a process's log that counts. */
export interface ProcessEvent extends Entry, Cursor {
  readonly kind: "event";
  readonly address: Address | undefined;
  /** with what a tail goes on behind this event */
  readonly cursor: string;
}

/** Make an event of the entry at that position. */
export function eventOf(entry: Entry, position: number, address?: Address): ProcessEvent {
  return {
    kind: "event",
    ...entry,
    position,
    address,
    get cursor() {
      return cursorText(this);
    },
  };
}

export type NoticeType = "gap" | "takeover" | "caught_up" | "unreachable" | "ended";

/** What the reader itself has to say: never stored, never numbered. Protocol: section 2.4. */
export interface Notice {
  readonly kind: "notice";
  readonly type: NoticeType;
  readonly data: Fields;
  readonly address: Address | undefined;
  /** of the event before it */
  readonly cursor: string;
}

export function notice(type: NoticeType, data: Fields, address?: Address, cursor = ""): Notice {
  return { kind: "notice", type, data, address, cursor };
}

export type Item = ProcessEvent | Notice;

export type Status = "accepted" | "applied" | "refused" | "too_late" | "unconfirmed";

/** The answer to a command: what became of it. Protocol: section 5. */
export interface Receipt {
  readonly command: string;
  readonly verb: string;
  readonly status: Status;
  /** for people: why it was refused or too late, or what is not certain */
  readonly why: string;
  /** as whom the owner saw the controller */
  readonly sender: string;
  readonly node: string;
  readonly epoch: number;
  /** the event that records it; 0 where the log need not know */
  readonly offset: number;
  readonly data: Fields;
  /** whether the server holds senders to their names, as far as the owner knows */
  readonly verified: boolean;
}

/** A receipt for that command, with these fields. */
export function receipt({ id, verb }: Pick<Command, "id" | "verb">, fields: Pick<Receipt, "status"> & Partial<Receipt>): Receipt {
  return { command: id, verb, why: "", sender: "", node: "", epoch: 0, offset: 0, data: {}, verified: true, ...fields };
}

/** Read a receipt; a status of a newer version counts as `refused`. Throws: BadPayload. */
export function parseReceipt(payload: Uint8Array): Receipt {
  const raw = decodeObject(payload, "receipt");
  const { command, verb, status } = raw;
  if (command === undefined || verb === undefined || status === undefined) throw new BadPayload("receipt is not one of ours");
  const known = ["accepted", "applied", "refused", "too_late", "unconfirmed"].includes(status);
  return receipt({ id: command, verb }, { ...(raw as Json), ...(!known && { status: "refused", why: `unknown status '${status}'` }) });
}

/** What a controller asks of an owner; the fields of each verb are those of section 5. */
export interface Command {
  readonly id: string;
  readonly verb: string;
  readonly reason?: string;
  readonly message?: Json;
  readonly epoch?: number;
  readonly turn?: number;
  readonly hard?: boolean;
  /** seconds between asking and forcing */
  readonly grace?: number;
  readonly data?: Fields;
}
