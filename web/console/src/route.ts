/** Where we are in the console: in the fragment, so that reload, back and bookmarks work. */

import { signal } from "@preact/signals";

import { parseFragment, placeFragment } from "./fragment.ts";
import type { Access } from "./fragment.ts";

export const place = signal({ process: "", view: "" });

/** Take what the address bar says; a credential in it is returned and removed from there at once. */
export function readAddress(): Access | null {
  const { access, process, view } = parseFragment(location.hash);
  const bare = placeFragment(process, view);
  const named = new URLSearchParams(location.hash.slice(1));
  if (["c", "k", "s", "as"].some((name) => named.has(name))) history.replaceState(history.state, "", bare === "#" ? location.pathname : bare);
  if (process !== place.value.process || view !== place.value.view) place.value = { process, view };
  return access;
}

/** Go to a process, or with "" to the fleet. */
export function go(process: string, view = ""): void {
  if (process === place.value.process && view === place.value.view) return;
  const deeper = process !== place.value.process;
  history[deeper ? "pushState" : "replaceState"](null, "", process ? placeFragment(process, view) : location.pathname);
  place.value = { process, view };
}
