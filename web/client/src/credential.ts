/** What a credential says of its holder. Protocol: section 8. */

import { BadPayload } from "./errors.js";
import { fromBase64, isObject } from "./messages.js";
import type { Json } from "./messages.js";
import { sanitize } from "./names.js";

const LINE = "natsproc_";

export interface Credential {
  readonly jwt: string;
  readonly seed: string;
  readonly sender: string;
  /** milliseconds since 1970; null: never */
  readonly expires: number | null;
  /** whether the holder may ask JetStream itself, and not only the gate */
  readonly direct: boolean;
  /** namespaces and ids, or `*`, whose logs it may have read */
  readonly watches: readonly (readonly [string, string])[];
  /** of the server, for browsers; empty where the credential does not say */
  readonly url: string;
  /** of the mesh, likewise */
  readonly prefix: string;
}

/** Read the one line that `natsproc grant` prints, or the text of a .creds file. Throws: BadPayload. */
export function parseCredential(text: string): Credential {
  try {
    const { jwt, seed, url = "", prefix = "" } = unpacked(text.trim());
    const { name, exp, nats } = json(jwt.split(".")[1]);
    const allowed: string[] = nats.pub?.allow ?? [">"];
    const denied: string[] = nats.pub?.deny ?? [];
    const sender = sanitize(name, "anonymous");
    const may = (patterns: string[]): boolean => patterns.some((p) => covers(p, "$JS.API.STREAM.INFO.X"));
    const watches = allowed
      .map((pattern) => pattern.split("."))
      .filter((t) => t.length === 5 && t[1] !== "_nodes" && t[3] === "history" && t[4] === sender)
      .map((t) => [t[1]!, t[2]!] as const);
    const direct = may(allowed) && !may(denied);
    return { jwt, seed, sender, expires: exp ? exp * 1000 : null, direct, watches, url, prefix };
  } catch {
    throw new BadPayload("this is not a credential: `natsproc grant` prints one, in a line that begins with natsproc_");
  }
}

function unpacked(text: string): { jwt: string; seed: string; url?: string; prefix?: string } {
  if (text.startsWith(LINE)) return json(text.slice(LINE.length));
  const part = (what: string): string => text.split(`BEGIN ${what}-----`)[1]!.trim().split(/\s/)[0]!;
  return { jwt: part("NATS USER JWT"), seed: part("USER NKEY SEED") };
}

function json(text: string | undefined): Json {
  const value: Json = JSON.parse(new TextDecoder().decode(fromBase64(text!)));
  if (!isObject(value)) throw new TypeError();
  return value;
}

/** Whether a NATS subject pattern matches a subject. */
function covers(pattern: string, subject: string): boolean {
  const tokens = subject.split(".");
  const wanted = pattern.split(".");
  const open = wanted.at(-1) === ">" && tokens.length >= wanted.length;
  if (open) wanted.pop();
  return (open || wanted.length === tokens.length) && wanted.every((token, i) => token === "*" || token === tokens[i]);
}
