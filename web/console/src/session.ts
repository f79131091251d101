/** The one connection of the page: who we are, whether it holds, and in words why not. */

import { computed, signal } from "@preact/signals";
import { connect, NoMesh, NoServer, NotAllowed, ServerUnfit } from "natsproc";
import type { Mesh } from "natsproc";

import type { Access } from "./fragment.ts";
import { lineOf } from "./link.ts";
import { anyone, rightsIn } from "./rights.ts";
import type { Rights } from "./rights.ts";
import { exactly } from "./words.ts";

export type Phase = "none" | "connecting" | "up" | "down" | "over";

const KEEP = "natsproc.access";
const RETRY = [500, 1000, 2000, 4000]; // milliseconds

export const phase = signal<Phase>("none");
/** Why there is no connection, in a sentence; empty while there is one. */
export const trouble = signal("");
export const mesh = signal<Mesh | null>(null);
export const rights = signal<Rights | null>(null);
/** When the connection was lost; 0 while it holds. */
export const lostAt = signal(0);
export const me = computed(() => mesh.value?.sender ?? rights.value?.sender ?? "");

let generation = 0;

/** What an earlier visit of this tab left, so that a reload of it needs no new link. */
export function remembered(): Access | null {
  try {
    return JSON.parse(sessionStorage.getItem(KEEP) ?? "null");
  } catch {
    return null;
  }
}

/** Connect, and go on trying until it works or is known never to. */
export async function begin(access: Access): Promise<void> {
  const mine = ++generation;
  void mesh.value?.close();
  mesh.value = null;
  sessionStorage.setItem(KEEP, JSON.stringify(access));
  phase.value = "connecting";
  trouble.value = "";
  for (let tries = 0; mine === generation; tries++) {
    try {
      if ("key" in access) {
        const line = await lineOf(access.key);
        return mine === generation ? await begin({ line }) : undefined;
      }
      rights.value = "line" in access ? rightsIn(access.line) : anyone(access.sender);
      const how = "line" in access ? { credentials: access.line } : { servers: access.server, sender: access.sender };
      const found = await connect(how);
      if (mine !== generation) return void found.close();
      return settle(found);
    } catch (error) {
      if (mine !== generation) return;
      if (!isPassing(error)) return end(error);
      phase.value = "down";
      lostAt.value ||= Date.now();
      trouble.value = sentence(error);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY[Math.min(tries, RETRY.length - 1)]));
  }
}

function settle(found: Mesh): void {
  mesh.value = found;
  phase.value = "up";
  trouble.value = "";
  lostAt.value = 0;
  found.on("down", () => {
    if (phase.value !== "up") return;
    phase.value = "down";
    lostAt.value = Date.now();
  });
  found.on("up", () => {
    if (phase.value === "over" || !found.connected) return;
    phase.value = "up";
    trouble.value = "";
    lostAt.value = 0;
  });
}

/** The connection is over for good. */
export function end(error: unknown): void {
  if (phase.value === "over") return;
  phase.value = "over";
  trouble.value = whyOver(error);
}

/** Forget the credential, and show the door again. */
export function leave(): void {
  generation++;
  void mesh.value?.close();
  sessionStorage.removeItem(KEEP);
  mesh.value = rights.value = null;
  phase.value = "none";
  trouble.value = "";
}

function isPassing(error: unknown): boolean {
  return error instanceof NoServer || (error instanceof ServerUnfit && !(error instanceof NoMesh));
}

function whyOver(error: unknown): string {
  const { expires, sender } = rights.value ?? {};
  if (expires && expires <= Date.now()) return `This link ended at ${exactly(new Date(expires).toISOString()).replace(/\.\d+$/, "")}.`;
  if (error instanceof NotAllowed && rights.value) return `The server does not take the credential of ${sender || "this link"} any more: it was revoked, or is for another mesh.`;
  return sentence(error);
}

/** What an error says, as a sentence. */
export function sentence(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text ? `${text[0]!.toUpperCase()}${text.slice(1)}${/[.!?`]$/.test(text) ? "" : "."}` : "Something went wrong.";
}
