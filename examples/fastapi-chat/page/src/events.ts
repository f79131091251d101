/** What a process says, over HTTP: `EventSource` goes on by itself where it was cut off, at whatever replica. */

import { useEffect, useReducer, useState } from "react";

/** An event, or a notice about the stream, which has neither offset nor epoch. */
export interface Item {
  readonly type: string;
  readonly data: any;
  readonly offset?: number;
  readonly epoch?: number;
}

/** Folds all that a process has said, and what it says from now on, into a state; also whether the stream is there. */
export function useEvents<S>(url: string, fold: (state: S, item: Item) => S, begin: S): [S, string] {
  const [state, dispatch] = useReducer(fold, begin);
  const [stream, setStream] = useState("connecting");
  useEffect(() => {
    const source = new EventSource(url);
    source.onopen = () => setStream("open");
    source.onmessage = ({ data }) => {
      const item: Item = JSON.parse(data);
      dispatch(item);
      if (item.type === "ended") source.close();
    };
    source.onerror = () => setStream(source.readyState === EventSource.CLOSED ? "closed" : "connecting");
    source.addEventListener("problem", ({ data }) => setStream(JSON.parse(data).detail));
    return () => source.close();
  }, [url]);
  return [state, stream];
}

/** Posts JSON, again if a replica died of it: with the same `id` it counts once. Returns what came back, and through which replica. */
export async function post(url: string, body: object = {}): Promise<{ said: any; replica: string }> {
  const headers = { "Content-Type": "application/json" };
  const response = await insist(url, { method: "POST", headers, body: JSON.stringify({ id: newId(), ...body }) });
  const said = await response.json();
  if (!response.ok && response.status !== 409) throw new Error(said.detail ?? response.statusText);
  return { said, replica: response.headers.get("X-Replica") ?? "?" };
}

export const newId = (): string => crypto.getRandomValues(new Uint32Array(4)).join("-");

async function insist(url: string, request: RequestInit, tries = 5): Promise<Response> {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (tries === 1) throw error;
    await new Promise((done) => setTimeout(done, 500));
    return insist(url, request, tries - 1);
  }
}
