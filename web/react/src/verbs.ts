/** The verbs of a process, as functions that a component can pass on. */

import type { Address, Mesh, ProcessHandle } from "natsproc";

const NAMES = ["send", "request", "answer", "interrupt", "pause", "resume", "cancel", "kill"] as const;

/** What they take, return and throw is what the methods of `ProcessHandle` do. They stay the same between renders. */
export type Verbs = Pick<ProcessHandle, (typeof NAMES)[number]>;

/** Those of that process. Without a mesh they reject: there is no connection yet. */
export function verbsOf(mesh: Mesh | null, id: string | Address): Verbs {
  const handle = mesh?.process(id);
  const missing = (): Promise<never> => Promise.reject(new Error(`there is no connection yet, so ${id} cannot be reached`));
  const verbs = NAMES.map((name) => [name, handle ? handle[name].bind(handle) : missing]);
  return Object.fromEntries(verbs) as Verbs;
}
