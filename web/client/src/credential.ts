/** What a credential says of its holder. Protocol: section 8. */

import { BadPayload } from "./errors.js";
import { decodeObject, fromBase64 } from "./messages.js";
import type { Json } from "./messages.js";
import { checkName } from "./names.js";

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

/** Read the one line that `natsproc grant` prints. Throws: BadPayload. */
export function parseCredential(text: string): Credential {
  try {
    const { jwt, seed, url = "", prefix = "" } = json(text.trim().split(LINE)[1]);
    const { name, exp, nats } = json(jwt.split(".")[1]);
    const allowed: string[] = nats.pub?.allow ?? [">"];
    const sender = checkName(name, "sender");
    const watches = allowed
      .map((pattern) => pattern.split("."))
      .filter((t) => t[1] !== "_nodes" && t[3] === "history" && t[4] === sender)
      .map((t) => [t[1]!, t[2]!] as const);
    const direct = allowed.some((pattern) => [">", "$JS.>", "$JS.API.>"].includes(pattern));
    return { jwt, seed, sender, expires: exp ? exp * 1000 : null, direct, watches, url, prefix };
  } catch {
    throw new BadPayload("this is not a credential: `natsproc grant` prints one, in a line that begins with natsproc_");
  }
}

function json(text: string | undefined): Json {
  return decodeObject(fromBase64(text!));
}
