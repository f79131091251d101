/** Which turn is under way. */

import type { ProcessEvent } from "natsproc";

import type { ChatProcess } from "./transport.js";

const FEW = 200;
const MORE = 8; // times as many, as long as it is not found
const MOST = 1_000_000;

/** The `turn_began` of the turn that has not ended yet; null if there is none. */
export async function runningTurn(process: ChatProcess): Promise<ProcessEvent | null> {
  for (let n = FEW; ; n *= MORE) {
    const events = await lastEvents(process, n);
    const found = events.findLast(({ type }) => ["turn_began", "turn_ended", "started", "restarted", "recovered", "exited"].includes(type));
    if (found) return found.type === "turn_began" ? found : null;
    if (events.length < n || n > MOST) return null;
  }
}

async function lastEvents(process: ChatProcess, n: number): Promise<ProcessEvent[]> {
  const events: ProcessEvent[] = [];
  for await (const item of process.tail({ n, follow: false })) if (item.kind === "event") events.push(item);
  return events;
}
