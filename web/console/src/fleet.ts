/** All processes that we may see, live. */

import { computed, effect, signal } from "@preact/signals";
import { Closed, NotAllowed } from "natsproc";
import type { Mesh, ProcessInfo, ProcessRecord } from "natsproc";

import { counts, EVERYTHING, select } from "./filter.ts";
import type { Filter, Member } from "./filter.ts";
import { end, mesh, phase } from "./session.ts";

const REFRESH = 4000; // milliseconds
const SETTLE = 250;
const GATHER = 30;

export interface Process extends Member {
  readonly run: number;
  readonly epoch: number;
  readonly pty: boolean;
  readonly allow: readonly string[];
  readonly code: number | null;
  readonly asks: ProcessRecord["asks"];
  readonly viewers: Readonly<Record<string, number>>;
  /** milliseconds since 1970, here: of its last event; 0 if that is not known */
  readonly heard: number;
  /** RFC 3339: since when nobody owns it; empty if somebody does, or that is not known */
  readonly goneSince: string;
  /** of the record */
  readonly updated: string;
}

export const fleet = signal<ReadonlyMap<string, Process>>(new Map());
/** Whether it was read once. */
export const known = signal(false);
export const filter = signal<Filter>(EVERYTHING);
export const shown = computed(() => select(fleet.value.values(), filter.value));
export const counted = computed(() => counts(fleet.value.values()));
export const waiting = computed(() => select(fleet.value.values(), { ...EVERYTHING, group: "waiting" }));
export const namespaces = computed(() => [...new Set([...fleet.value.values()].map((each) => each.namespace))].sort());
export const kinds = computed(() => [...new Set([...fleet.value.values()].map((each) => each.kind))].sort());

/** Now, in milliseconds; moves once a second while somebody looks. */
export const now = signal(Date.now());
setInterval(() => document.hidden || (now.value = Date.now()), 1000);

effect(() => {
  const found = mesh.value;
  if (!found) return;
  const stop = new AbortController();
  void follow(found, stop.signal);
  return () => stop.abort();
});

async function follow(found: Mesh, signal: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let reading = false;
  const soon = (wait: number, ended: boolean): void => {
    clearTimeout(timer);
    timer = setTimeout(() => void read(ended), wait);
  };
  const read = async (ended: boolean): Promise<void> => {
    if (signal.aborted) return;
    if (!reading && !document.hidden && phase.value === "up") {
      reading = true;
      try {
        const infos = await found.list({ namespace: "*", ended });
        if (!signal.aborted) take(infos, ended);
      } catch {
        // what is for good, the watch below says
      }
      reading = false;
    }
    soon(REFRESH, false);
  };
  const look = (): void => void (document.hidden || read(true));
  document.addEventListener("visibilitychange", look);
  const forget = found.on("up", () => soon(0, true));
  void read(true);
  const changed = gathered<ProcessRecord>((records) => {
    const next = new Map(fleet.value);
    for (const record of records) next.set(keyOf(record), member(record, next.get(keyOf(record))));
    fleet.value = next;
  });
  try {
    for await (const { record } of found.watch({ namespace: "*", signal })) {
      if (record) changed(record);
      else soon(SETTLE, true);
    }
  } catch (error) {
    if (!signal.aborted && (error instanceof NotAllowed || error instanceof Closed)) end(error);
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    forget();
  }
}

/** Calls `take` with what came within a moment, all at once. */
function gathered<T>(take: (items: readonly T[]) => void): (item: T) => void {
  let items: T[] = [];
  return (item) => {
    if (items.push(item) > 1) return;
    setTimeout(() => {
      const some = items;
      items = [];
      take(some);
    }, GATHER);
  };
}

function keyOf({ address }: ProcessRecord): string {
  return `${address.namespace}/${address.id}`;
}

/** What was listed is all there is, of what lives at least. */
function take(infos: readonly ProcessInfo[], ended: boolean): void {
  const next = new Map<string, Process>();
  if (!ended) for (const one of fleet.value.values()) if (one.ended) next.set(one.key, one);
  for (const info of infos) {
    const one = member(info, fleet.value.get(keyOf(info)));
    next.set(one.key, one);
  }
  fleet.value = next;
  known.value = true;
}

function member(record: ProcessRecord & Partial<ProcessInfo>, before?: Process): Process {
  const { address, kind, node, started, updated, ended, labels, parent, title, run, epoch, pty, allow, code, asks, viewers = {} } = record;
  const { namespace, id } = address;
  // a record as such does not say that its owner is gone
  const stillGone = record.gone === undefined && before?.state === "unreachable" && before.updated === updated;
  const state = stillGone ? before.state : record.state;
  const heard = record.quiet === undefined ? (before?.heard ?? 0) : record.quiet === null ? 0 : Date.now() - record.quiet * 1000;
  return {
    ...{ key: `${namespace}/${id}`, namespace, id, kind, node, state, started, ended, labels, parent, title },
    ...{ run, epoch, pty, allow, code, asks, viewers, heard, updated, goneSince: stillGone ? before.goneSince : (record.gone?.since ?? "") },
  };
}
