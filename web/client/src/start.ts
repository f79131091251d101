/** Where a tail begins: the latest run, a position, a cursor. Protocol: section 2.2. */

import { NoSuchProcess } from "./errors.js";
import type { History, Stored } from "./history.js";
import { parseEntry } from "./messages.js";
import type { Cursor } from "./messages.js";
import type { Address } from "./names.js";
import { checkLog, cursorAt, cutBefore, WINDOW } from "./ownership.js";
import { Reader } from "./reader.js";
import type { ReaderOptions } from "./reader.js";
import { parseClaim } from "./records.js";
import type { Claim, Cut } from "./records.js";

const LONG_AGO = 1e9; // seconds

/**
 * `run` without a number begins with the latest run; `behind` shows what lies behind a position, `above` what lies
 * above an offset and is wanted but for a few events, `last` so many events and what follows, `since` what is that many seconds old and younger.
 */
export type Start =
  | { readonly kind: "run"; readonly run?: number | undefined }
  | { readonly kind: "first" }
  | { readonly kind: "last"; readonly n: number }
  | { readonly kind: "since"; readonly seconds: number }
  | { readonly kind: "above"; readonly offset: number; readonly few: number }
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
    checkLog(start.cursor, claim, last?.position ?? 0);
    options = { cursor: start.cursor };
  } else if (start.kind === "behind") {
    options = { position: start.position };
  } else if (start.kind === "run" && claim) {
    options = atRun(start.run, claim, last, address, untilEnd);
  } else if (last) {
    options = await inTheMiddle(start, { history, subject, cuts, last });
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

interface Log {
  readonly history: Pick<History, "first" | "last" | "now" | "read">;
  readonly subject: string;
  readonly cuts: readonly Cut[];
  readonly last: Stored;
}

/** Where in a log that has entries to begin, so that only what is to be shown has to be read. */
export async function inTheMiddle(start: Start, log: Log): Promise<ReaderOptions> {
  const { history, subject, cuts, last } = log;
  if (start.kind === "above") return behind(log, start.offset);
  if (start.kind === "last" && cuts.length) return start.n > 0 ? behind(log, (await newest(log)) - start.n) : { position: last.position };
  if (start.kind !== "since") return {};
  const time = new Date(Date.parse(await history.now()) - Math.min(start.seconds, LONG_AGO) * 1000);
  const found = await history.first(subject, { start_time: time.toISOString() });
  if (!found) return { position: last.position };
  const { epoch, offset } = parseEntry(found.payload);
  return offset && cutBefore(cuts, found.position)?.epoch === epoch ? behind(log, offset - 1) : { position: found.position - 1 };
}

/** Show what lies above an offset; begin earlier, so that repeats just there can be told. */
async function behind(log: Log, offset: number): Promise<ReaderOptions> {
  return { position: await find(log, offset + 1 - WINDOW), offset: Math.max(offset, 0) };
}

/** The offset of the last event that counts; the one before the last cut if there is none. */
async function newest(log: Log): Promise<number> {
  const { epoch, offset } = log.cuts.at(-1)!;
  let entry = parseEntry(log.last.payload);
  if (entry.epoch !== epoch || !entry.offset) {
    // void, or a mark
    const found = await log.history.first(log.subject, { seq: await find(log, Number.MAX_SAFE_INTEGER) });
    entry = parseEntry((found ?? log.last).payload);
  }
  return entry.epoch === epoch && entry.offset ? entry.offset : offset - 1;
}

/**
 * The position of an entry before `offset`, at most `WINDOW` events before it: 0 if the log has to be read from its
 * first entry, and the epoch's last event if it has not come that far. Guesses, and halves what guesses leave.
 */
async function find({ history, subject, cuts, last }: Log, offset: number): Promise<number> {
  const index = cuts.findLastIndex((cut) => cut.offset <= offset);
  const [cut, next] = [cuts[index], cuts[index + 1]];
  if (!cut) return 0;
  let [low, high] = [cut.position, next?.position ?? last.position + 1];
  let [first, end] = [cut.offset - 1, next?.offset ?? parseEntry(last.payload).offset];
  for (let turn = 0; high - low > 1 && offset - first > WINDOW; turn++) {
    const share = turn % 2 ? 0.5 : (offset - WINDOW / 2 - first) / (end - first);
    const middle = low + 1 + Math.floor((high - low - 2) * (share > 0 ? Math.min(share, 1) : 0));
    const found = await eventOf(cut.epoch, middle, high);
    if (found.offset && found.offset < offset) [low, first] = [found.position, found.offset];
    else [high, end] = [middle, found.offset || end];
  }
  return low;

  /** The first event of that epoch from there on and before `upto`; zeros if there is none. */
  async function eventOf(epoch: number, from: number, upto: number): Promise<{ position: number; offset: number }> {
    const one = await history.first(subject, { seq: from });
    for (let entries = one ? [one] : []; entries.length; ) {
      for (const { position, payload } of entries) {
        const entry = parseEntry(payload);
        if (position >= upto) return { position: 0, offset: 0 };
        if (entry.epoch === epoch && entry.offset) return { position, offset: entry.offset };
      }
      const { value } = await history.read(subject, entries.at(-1)!.position, upto - 1, WINDOW).next();
      entries = value ?? [];
    }
    return { position: 0, offset: 0 };
  }
}
