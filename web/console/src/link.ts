/** A link has the key of a credential alone; the host of this page gives out the rest, by the public key. */

import { nkeys } from "@nats-io/nats-core";
import { NoServer, NotAllowed } from "natsproc";

/** The credential in one line. Throws: NoServer (try again), NotAllowed (there is none any more). */
export async function lineOf(seed: string): Promise<string> {
  const answer = await fetch(`links/${publicKey(seed)}.json`).catch(() => null);
  if (answer?.status === 404) throw new NotAllowed("this link has ended, or is of another place");
  if (!answer?.ok) throw new NoServer("the host of this page does not answer");
  return pack({ ...(await answer.json()), seed });
}

function publicKey(seed: string): string {
  try {
    return nkeys.fromSeed(new TextEncoder().encode(seed)).getPublicKey();
  } catch {
    throw new NotAllowed("this link is not whole: copy all of it");
  }
}

/** What `natsproc grant` prints. */
export function pack(credential: object): string {
  const bytes = new TextEncoder().encode(JSON.stringify(credential));
  const text = btoa(String.fromCharCode(...bytes));
  return `natsproc_${text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}
