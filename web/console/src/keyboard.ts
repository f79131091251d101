/** The whole console from the keyboard. */

import { answer, pause, resume } from "./acting.ts";
import { helping } from "./app.tsx";
import { compose } from "./composer.tsx";
import { filter, fleet } from "./fleet.ts";
import { branches, cursor } from "./fleet-view.tsx";
import { current } from "./process-view.tsx";
import { player } from "./replay-view.tsx";
import { go, place } from "./route.ts";
import { confirming } from "./verbs.tsx";

const STEP = 60; // pixels

export function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  const inField = target.matches("input, textarea, select");
  if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey || event.isComposing) return;
  if (helping.value || confirming.value) return; // a dialog is open, and knows Escape
  if (event.key === "Escape") return escape(event, target, inField);
  if (inField) return fieldKey(event, target);
  const act = place.value.process ? (PROCESS[event.key] ?? digit(event.key)) : FLEET[event.key];
  const done = act ?? ANYWHERE[event.key];
  if (!done) return;
  if (["Enter", " "].includes(event.key) && target.matches("button, a, [role=button]")) return; // it is meant for that
  event.preventDefault();
  done();
}

function escape(event: KeyboardEvent, target: HTMLElement, inField: boolean): void {
  event.preventDefault();
  if (inField) {
    if (target.id === "search" && filter.value.text) filter.value = { ...filter.value, text: "" };
    else target.blur();
    if (current) current.scroller?.focus();
  } else if (place.value.process) {
    cursor.value = place.value.process;
    go("");
  } else cursor.value = "";
}

function fieldKey(event: KeyboardEvent, target: HTMLElement): void {
  if (target.id !== "search" || !["Enter", "ArrowDown", "ArrowUp"].includes(event.key)) return;
  event.preventDefault();
  if (event.key === "Enter") open();
  else move(event.key === "ArrowDown" ? 1 : -1);
}

function move(by: number): void {
  const keys = branches().map(({ member }) => member.key);
  const at = keys.indexOf(cursor.value);
  const next = keys[Math.min(keys.length - 1, Math.max(0, at + by))];
  if (!next) return;
  cursor.value = next;
  requestAnimationFrame(() => {
    const row = document.querySelector<HTMLElement>(`[data-process="${CSS.escape(next)}"]`);
    row?.scrollIntoView({ block: "nearest" });
    if (!document.activeElement?.matches("input")) row?.focus({ preventScroll: true });
  });
}

function open(): void {
  const chosen = cursor.value || branches()[0]?.member.key;
  if (!chosen) return;
  document.querySelector<HTMLElement>("#search")?.blur();
  go(chosen);
}

function search(): void {
  const field = document.querySelector<HTMLInputElement>("#search");
  field?.focus();
  field?.select();
}

function scroll(by: number): void {
  current?.scroller?.scrollBy({ top: by });
}

function page(by: number): void {
  const scroller = current?.scroller;
  scroller?.scrollBy({ top: by * scroller.clientHeight * 0.9 });
}

function toggle(): void {
  const { process } = place.value;
  const found = fleet.value.get(process);
  if (found && !found.ended) void (found.state === "paused" ? resume : pause)(process);
}

/** Answer the question that is open with its choice of that number. */
function digit(key: string): (() => void) | undefined {
  const found = fleet.value.get(place.value.process);
  const ask = found?.asks[0];
  const choice = /^[1-9]$/.test(key) ? ask?.choices?.[+key - 1] : undefined;
  return ask && choice !== undefined ? () => void answer(found!.key, ask.ask, choice) : undefined;
}

const ANYWHERE: Readonly<Record<string, () => void>> = {
  "/": search,
  "?": () => void (helping.value = true),
};

const FLEET: Readonly<Record<string, () => void>> = { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), Enter: open };

const PROCESS: Readonly<Record<string, () => void>> = {
  j: () => scroll(STEP),
  k: () => scroll(-STEP),
  g: () => current?.timeline.toStart(),
  G: () => current?.timeline.toEnd(),
  s: () => compose("send"),
  i: () => compose("interrupt"),
  p: toggle,
  t: () => go(place.value.process),
  m: () => go(place.value.process, "metrics"),
  r: () => go(place.value.process, "replay"),
  " ": () => (player ? (player.playing.value ? player.pause() : player.play()) : page(1)),
};
