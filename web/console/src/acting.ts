/** What we do to a process, and what comes of it: commands with their receipts, and messages. */

import { signal } from "@preact/signals";
import type { ProcessHandle, Receipt, When } from "natsproc";

import { mesh, sentence } from "./session.ts";

export type Outcome = "sending" | "accepted" | "stored" | Receipt["status"] | "failed";

/** Something that we did from this page. */
export interface Deed {
  /** of the command or message: the event that records it has it as its cause */
  readonly id: string;
  readonly process: string;
  readonly verb: string;
  readonly outcome: Outcome;
  /** for people: why it came to nothing, or what is not certain */
  readonly why: string;
  /** offset of the event that records it; 0 where there is none */
  readonly offset: number;
  /** milliseconds that it took */
  readonly took: number;
  readonly begun: number;
}

const KEPT = 200;

export const deeds = signal<readonly Deed[]>([]);
/** The last thing to say to who cannot see the page. */
export const said = signal("");

export function say(text: string): void {
  said.value = text;
}

export function dismiss(id: string): void {
  deeds.value = deeds.value.filter((deed) => deed.id !== id);
}

function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return Array.from(bytes, (byte) => "abcdefghijkmnpqrstuvwxyz23456789"[byte % 32]).join("");
}

function note(deed: Deed): void {
  const others = deeds.value.filter((one) => one.id !== deed.id);
  deeds.value = [...others, deed].slice(-KEPT);
}

type Command = (handle: ProcessHandle, id: string) => Promise<Receipt>;

async function command(process: string, verb: string, give: Command): Promise<boolean> {
  const id = newId();
  const begun = Date.now();
  const deed: Deed = { id, process, verb, outcome: "sending", why: "", offset: 0, took: 0, begun };
  note(deed);
  try {
    const handle = mesh.value!.process(process);
    const { status, why, offset } = await give(handle, id);
    note({ ...deed, outcome: status, why, offset, took: Date.now() - begun });
    say(`${verb} of ${process}: ${words(status)}${why ? `, ${why}` : ""}`);
    return status === "applied" || status === "accepted";
  } catch (error) {
    note({ ...deed, outcome: "failed", why: sentence(error), took: Date.now() - begun });
    say(`${verb} of ${process} failed: ${sentence(error)}`);
    return false;
  }
}

export const pause = (process: string) => command(process, "pause", (handle, id) => handle.pause({ id }));
export const resume = (process: string) => command(process, "resume", (handle, id) => handle.resume({ id }));
export const cancel = (process: string, reason = "") => command(process, "cancel", (handle, id) => handle.cancel({ id, ...(reason && { reason }) }));
export const kill = (process: string, reason = "") => command(process, "kill", (handle, id) => handle.kill({ id, ...(reason && { reason }) }));

/** Stop what it does now, and say what to do instead, if anything. */
export function interrupt(process: string, message: unknown): Promise<boolean> {
  return command(process, "interrupt", (handle, id) => handle.interrupt({ id, ...(message !== undefined && { message: message as never }) }));
}

export function answer(process: string, ask: string, value: unknown): Promise<boolean> {
  return command(process, "answer", (handle, id) => handle.answer(value as never, { id, ask }));
}

/** Leave a message in its inbox. */
export async function send(process: string, data: unknown, when: When | undefined): Promise<boolean> {
  const id = newId();
  const begun = Date.now();
  const deed: Deed = { id, process, verb: "message", outcome: "sending", why: "", offset: 0, took: 0, begun };
  note(deed);
  try {
    await mesh.value!.process(process).send(data as never, { id, ...(when && { when }) });
    note({ ...deed, outcome: "stored", took: Date.now() - begun });
    say(`message to ${process} is stored`);
    return true;
  } catch (error) {
    note({ ...deed, outcome: "failed", why: sentence(error), took: Date.now() - begun });
    say(`message to ${process} failed: ${sentence(error)}`);
    return false;
  }
}

/** An outcome in a word or two. */
export function words(outcome: Outcome): string {
  return { sending: "on its way", too_late: "too late", stored: "stored", failed: "failed" }[outcome as string] ?? outcome;
}
