/** A process in a component. */

import type { Address, Mesh, ProcessHandle, TailOptions } from "natsproc";
import { useMemo, useSyncExternalStore } from "react";

import { Following, UNKNOWN } from "./following.js";
import type { FollowOptions, ProcessState } from "./following.js";
import { useMesh } from "./mesh.js";
import { verbsOf } from "./verbs.js";
import type { Verbs } from "./verbs.js";

const LIMIT = 1000;
const KEEP_SECONDS = 60;

/** Where to begin (`after`, `n`, `since`, `run`), `compact` (true unless said) and `announce` are those of a tail. */
export interface UseProcessOptions extends Pick<TailOptions, "after" | "n" | "since" | "run" | "compact" | "announce"> {
  /** events and texts kept, 1000 unless said */
  readonly limit?: number;
  /** seconds for which what was read is kept when no component shows it any more, 60 unless said */
  readonly keep?: number;
}

export interface UseProcess extends ProcessState, Verbs {
  /** for what is not here: pages back, waiting, inspecting; null until there is a connection */
  readonly handle: ProcessHandle | null;
}

/**
 * Follow a process and steer it. What it says comes once a frame at most. Components that ask for the same share one tail; one that
 * is mounted again within `keep` seconds goes on behind the last event that was read.
 */
export function useProcess(id: string | Address, options: UseProcessOptions = {}): UseProcess {
  const { mesh } = useMesh();
  const name = mesh ? fullName(mesh.process(id).address) : String(id);
  const wanted = JSON.stringify({ limit: LIMIT, keep: KEEP_SECONDS, ...options });
  const following = useMemo(() => (mesh ? followingOf(mesh, name, wanted) : null), [mesh, name, wanted]);
  const state = useSyncExternalStore(following?.subscribe ?? nobody, following?.snapshot ?? unknown, unknown);
  const verbs = useMemo(() => ({ ...verbsOf(mesh, name), handle: mesh?.process(name) ?? null }), [mesh, name]);
  return useMemo(() => ({ ...state, ...verbs }), [state, verbs]);
}

const unknown = (): ProcessState => UNKNOWN;
const nobody = (): (() => void) => () => {};
const fullName = ({ namespace, id }: Address): string => `${namespace}/${id}`;
const all = new WeakMap<Mesh, Map<string, Following>>();

function followingOf(mesh: Mesh, name: string, wanted: string): Following {
  const those = all.get(mesh) ?? new Map<string, Following>();
  all.set(mesh, those);
  const key = `${name} ${wanted}`;
  const found = those.get(key) ?? new Following(mesh, name, JSON.parse(wanted) as FollowOptions, () => those.delete(key));
  those.set(key, found);
  return found;
}
