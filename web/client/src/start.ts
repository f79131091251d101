/** Where a tail begins: the latest run, a position, a cursor. Protocol: section 2.2. */

import { NoSuchProcess } from "./errors.js";
import type { History, Stored } from "./history.js";
import type { Cursor } from "./messages.js";
import type { Address } from "./names.js";
import { cursorAt, foreignCursor } from "./ownership.js";
import { Reader } from "./reader.js";
import type { ReaderOptions } from "./reader.js";
import { parseClaim } from "./records.js";
import type { Claim } from "./records.js";

/** `run` without a number begins with the latest run; `behind` shows what lies behind a position. */
export type Start =
  | { readonly kind: "run"; readonly run?: number | undefined }
  | { readonly kind: "first" }
  | { readonly kind: "behind"; readonly position: number }
  | { readonly kind: "cursor"; readonly cursor: Cursor };

/** A process's claim, as the leader has it. */
export async function readClaim(claims: History, address: Address): Promise<Claim | null> {
  const found = await claims.get(address.key, true);
  return found && !found.marker ? parseClaim(found.payload, found.position) : null;
}

/** A reader of that subject which begins there. Throws: NoSuchProcess; BadPayload (the cursor is of another log). */
export async function readerAt(
  start: Start,
  { history, claims, address, subject, untilEnd }: { history: History; claims: History; address: Address; subject: string; untilEnd: boolean },
): Promise<Reader> {
  // The log's end before the claim: what the claim does not know of yet then lies behind that end.
  const last = await history.lastFromLeader(subject);
  const claim = await readClaim(claims, address);
  if (!claim && !last) throw new NoSuchProcess(`no process ${address} has run here`);
  const cuts = claim?.cuts ?? [];
  let options: ReaderOptions = {};
  if (start.kind === "cursor") {
    if (claim && start.cursor.epoch < claim.born) throw foreignCursor(start.cursor);
    options = { cursor: start.cursor };
  } else if (start.kind === "behind") {
    options = { position: start.position };
  } else if (start.kind === "run" && claim) {
    options = atRun(start.run, claim, last, address, untilEnd);
  }
  return new Reader({ ...options, cuts, followRuns: !untilEnd, address });
}

function atRun(run: number | undefined, claim: Claim, last: Stored | null, address: Address, untilEnd: boolean): ReaderOptions {
  if ((run ?? 0) > claim.run) throw new NoSuchProcess(`${address} has come to run ${claim.run} so far, not to run ${run}`);
  const cut = claim.cuts.find((one) => one.run === (run ?? claim.run));
  if (cut) return { run, cursor: cursorAt(cut) };
  // the next run is claimed and has not begun: wait for it
  if (run === undefined && claim.cuts.length && last) return { run: untilEnd ? claim.run : undefined, position: last.position };
  return { run };
}
