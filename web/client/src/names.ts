/** Names and subjects: what may be one, and where everything lives. Protocol: section 1. */

import { BadName } from "./errors.js";

const TOKEN = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789";

/** Whether `value` can be one token of ours; `$` alone would let a line break by. */
export function isName(value: unknown): value is string {
  return typeof value === "string" && TOKEN.test(value) && !value.endsWith("\n");
}

/** Return `value` if it can be a name. Throws: BadName. */
export function checkName(value: string, what = "id"): string {
  if (isName(value)) return value;
  throw new BadName(
    `${JSON.stringify(String(value).slice(0, 80))} cannot be a process ${what}: letters, digits, '-' and '_' only, ` +
      "beginning with a letter or digit, at most 64 characters",
  );
}

/** Make a random token: a command id, a message id. */
export function newToken(length = 16): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => ALPHABET[byte % 32]).join("");
}

/** Where a process is found. Written `id`, or `namespace/id`. */
export class Address {
  constructor(
    readonly namespace: string,
    readonly id: string,
  ) {}

  /** Read `id` or `namespace/id`; `namespace` is used for the first form. Throws: BadName. */
  static parse(text: string, namespace = "default"): Address {
    const slash = text.indexOf("/");
    const space = slash < 0 ? namespace : text.slice(0, slash);
    return new Address(checkName(space, "namespace"), checkName(text.slice(slash + 1)));
  }

  /** The process's key in buckets. */
  get key(): string {
    return `${this.namespace}.${this.id}`;
  }

  toString(): string {
    return this.namespace === "default" ? this.id : `${this.namespace}/${this.id}`;
  }
}

/** Every subject, stream and bucket of the mesh under one prefix. */
export class Names {
  readonly #upper: string;

  constructor(readonly prefix = "proc") {
    this.#upper = checkName(prefix, "mesh prefix").toUpperCase().replaceAll("-", "_");
  }

  /** The name of a stream (`EVENTS`, `INBOX`) or bucket (`CLAIMS`, `REGISTRY`, `ENDED`, `LEASES`). */
  store(what: string): string {
    return `${this.#upper}_${what}`;
  }

  /** A subject of that process, of the kinds `events`, `live` and `record`. */
  of(address: Address, kind: "events" | "live" | "record"): string {
    return `${this.prefix}.${address.key}.${kind}`;
  }

  /** One that ends in who speaks. */
  by(address: Address, kind: "inbox" | "delivered" | "control" | "viewers", sender: string): string {
    return `${this.prefix}.${address.key}.${kind}.${sender}`;
  }

  /** All registry changes, of a namespace or of the mesh. */
  records(namespace = "*", id = "*"): string {
    return `${this.prefix}.${namespace}.${id}.record`;
  }

  lease(node: string): string {
    return `${this.prefix}._nodes.${node}.lease`;
  }
}

/** The process that a subject is about. */
export function addressOf(subject: string): Address {
  const tokens = subject.split(".");
  return new Address(tokens[1] ?? "", tokens[2] ?? "");
}

/** Whether a reply subject lies in the inbox of that sender: an owner answers nothing else. */
export function replyIsClients(reply: string, sender: string): boolean {
  const prefix = `_INBOX.${sender}.`;
  return reply.startsWith(prefix) && reply.length > prefix.length && !/[\s*>]/.test(reply);
}
