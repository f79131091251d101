/** A process behind somebody's own back end, which serves it over HTTP (docs/http.md): no client of NATS is in the page. */

import type { Item, Json, TailOptions } from "natsproc";

import type { ChatProcess, ChatTail } from "./transport.js";

const AGAIN_MS = [100, 200, 500, 1000, 2000];
const SILENT_MS = 40_000; // it says something every 15 seconds

/** The process at that address, as in `processAt("/proc/agent")`. `options` go along with each request. */
export function processAt(url: string, options: RequestInit = {}): ChatProcess {
  const verb = async (name: string, body: Json): Promise<Json> => {
    const headers = new Headers(options.headers);
    headers.set("Content-Type", "application/json");
    const answer = await fetch(`${url}/${name}`, { ...options, method: "POST", headers, body: JSON.stringify(body) });
    const said = await answer.json().catch(() => null);
    if (!answer.ok && !said?.receipt) throw failure(answer.status, said);
    return said.receipt ?? said;
  };
  return {
    tail: (tailOptions) => tailOf(`${url}/events`, tailOptions, options),
    send: (data, options) => again((id) => verb("send", { data, id, ...options })),
    interrupt: (options = {}) => again((id) => verb("interrupt", { id, ...options })),
    answer: (value, options = {}) => again((id) => verb("answer", { value, id, ...options })),
  };
}

/** Messages and commands have an id: sent again with the same one they are stored, or done, once. */
async function again(attempt: (id: string) => Promise<Json>): Promise<Json> {
  const id = crypto.randomUUID();
  for (let tries = 0; ; tries++) {
    try {
      return await attempt(id);
    } catch (error) {
      if (!passes(error as Error) || tries >= AGAIN_MS.length) throw error;
      await sleep(AGAIN_MS[tries]!);
    }
  }
}

function tailOf(url: string, wanted: TailOptions, options: RequestInit): ChatTail {
  const leaving = new AbortController();
  const read = items(url, wanted, options, leaving.signal);
  const leave = (): Promise<unknown> => {
    leaving.abort(); // what is waited for comes to an end, too
    return read.return(undefined);
  };
  return { next: () => read.next(), return: leave, [Symbol.asyncIterator]: () => read };
}

async function* items(url: string, { after, n, run, follow = true, compact = false }: TailOptions, options: RequestInit, leaving: AbortSignal): AsyncGenerator<Item, undefined> {
  let cursor = after;
  let skips = n === 0; // there is a place to go on from only behind an event
  let caughtUp = false;
  for (let tries = 0; !leaving.aborted; ) {
    const start = cursor === undefined ? { n: n === 0 ? 1 : n, run } : { after: cursor };
    const query = Object.entries({ ...start, follow: follow ? undefined : 0, compact: compact ? 1 : undefined }).filter(([, value]) => value !== undefined);
    try {
      for await (const item of connection(`${url}?${new URLSearchParams(query as [string, string][])}`, options, leaving)) {
        tries = 0;
        if (item.kind === "event") cursor = item.cursor;
        else if (item.type === "caught_up" && caughtUp) continue; // after a reconnect
        else caughtUp ||= item.type === "caught_up";
        if (!skips || item.kind === "notice") yield item;
        skips = false;
        if (item.type === "ended") return;
      }
      if (!follow) return;
    } catch (error) {
      if (!passes(error as Error)) throw error;
    }
    await sleep(AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)]!);
  }
}

/** What one request brings, until it is cut off or silent for too long. */
async function* connection(url: string, options: RequestInit, leaving: AbortSignal): AsyncGenerator<Item> {
  const cut = new AbortController();
  const leave = (): void => cut.abort();
  leaving.addEventListener("abort", leave);
  try {
    const headers = new Headers(options.headers);
    headers.set("Accept", "text/event-stream");
    const answer = await fetch(url, { ...options, headers, signal: cut.signal });
    if (!answer.ok || !answer.body) throw failure(answer.status, await answer.json().catch(() => null));
    yield* parsed(answer.body, leave);
  } finally {
    leaving.removeEventListener("abort", leave);
    cut.abort();
  }
}

/** Server-Sent Events, as items. Throws: what the server has to say at the end. */
async function* parsed(body: ReadableStream<Uint8Array>, leave: () => void): AsyncGenerator<Item> {
  const reader = body.pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  for (;;) {
    const watch = setTimeout(leave, SILENT_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(watch));
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop()!;
    for (const block of blocks) {
      const data = /^data: ?(.*)$/m.exec(block)?.[1];
      if (!data) continue;
      const said = JSON.parse(data);
      if (/^event: ?problem$/m.test(block)) throw failure(said.status, said);
      yield { kind: said.offset === undefined ? "notice" : "event", cause: null, ...said } as Item;
    }
  }
}

/** An error of the name that natsproc has for it. */
function failure(status: number, problem: Json): Error {
  const error = new Error(problem?.detail ?? `the server answers ${status}`);
  error.name = problem?.error ?? (status >= 500 ? "NoServer" : "NotAllowed");
  return error;
}

function passes({ name }: Error): boolean {
  return ["TypeError", "AbortError", "NoServer", "TimedOut"].includes(name);
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
