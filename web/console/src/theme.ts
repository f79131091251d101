/** Dark or light: as the system has it, unless somebody chose. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const KEEP = "natsproc.theme";
const ORDER: readonly Theme[] = ["system", "light", "dark"];

function remembered(): Theme {
  const kept = localStorage.getItem(KEEP) as Theme;
  return ORDER.includes(kept) ? kept : "system";
}

export const theme = signal<Theme>(remembered());

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  localStorage.setItem(KEEP, theme.value);
});

export function cycle(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length]!;
}
