/** Small drawings, all on a grid of sixteen. */

const PATHS: Readonly<Record<string, preact.ComponentChildren>> = {
  disc: <circle cx="8" cy="8" r="4.5" fill="currentColor" stroke="none" />,
  dot: <circle cx="8" cy="8" r="2.5" fill="currentColor" stroke="none" />,
  ring: <circle cx="8" cy="8" r="5" stroke-dasharray="2.6 2.6" />,
  bars: <path d="M5.5 4v8M10.5 4v8" stroke-width="2.4" />,
  check: <path d="m3.5 8.5 3 3 6-7" />,
  cross: <path d="m4.5 4.5 7 7m0-7-7 7" />,
  square: <rect x="4.5" y="4.5" width="7" height="7" rx="1" fill="currentColor" stroke="none" />,
  slash: <path d="M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3Zm-3.4 8.4 6.8-6.8" />,
  question: <path d="M8 1.8 14.2 8 8 14.2 1.8 8Zm-1.6 4.7a1.7 1.7 0 1 1 2.4 1.6c-.6.3-.8.6-.8 1.1m0 1.7v.1" />,
  play: <path d="M5 3.5v9l7-4.5Z" fill="currentColor" />,
  hand: <path d="M4 8.5 8 4.5l4 4M8 4.5v8" />,
  back: <path d="M10 3 5 8l5 5" />,
  search: <path d="M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10Zm3.8-1.2L14 14" />,
  sun: <path d="M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6Zm0-10v1.5m0 11V15M1 8h1.5m11 0H15M3 3l1.1 1.1m7.8 7.8L13 13m0-10-1.1 1.1M4.1 11.9 3 13" />,
  moon: <path d="M13.5 9.7A6 6 0 0 1 6.3 2.5a6 6 0 1 0 7.2 7.2Z" />,
  half: <path d="M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 2v12m2-11.6v11.2m2-10v8.8" />,
  eye: <path d="M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8Zm6.5 2a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z" />,
  down: <path d="M8 3v10m-4-4 4 4 4-4" />,
  up: <path d="M8 13V3M4 7l4-4 4 4" />,
  right: <path d="m6 3.5 4.5 4.5L6 12.5" />,
  warn: <path d="M8 2.2 14.5 13.5h-13ZM8 6.5v3.2m0 1.9v.1" />,
  power: <path d="M8 1.5V8M4.5 4a5.5 5.5 0 1 0 7 0" />,
  fork: <path d="M4.5 2v7.5c0 1.5 1 2.5 2.5 2.5h5M4.5 5.5c0 1 .8 1.5 2 1.5h5.5" />,
  person: <path d="M8 7.5a2.6 2.6 0 1 0 0-5.2 2.6 2.6 0 0 0 0 5.2ZM3 13.7c.4-2.7 2.3-4 5-4s4.6 1.3 5 4" />,
  reply: <path d="M6.5 4 2.5 8l4 4M2.5 8h7c2.5 0 4 1.5 4 4" />,
  save: <path d="M8 2v8m-3-3 3 3 3-3M3 13h10" />,
  swap: <path d="M3 5.5h9.5m-2.5-3 2.5 3-2.5 3M13 10.5H3.5m2.5 3-2.5-3 2.5-3" />,
  chart: <path d="M2 13.5h12M3 10.5l3.5-4 2.5 2.5 4-5.5" />,
  text: <path d="M3 4h10M3 8h10M3 12h6" />,
  send: <path d="M2.5 8 13.5 3l-3 10.5L7.5 9Z" />,
  more: <path d="M3.5 8h.1M8 8h.1M12.5 8h.1" stroke-width="2.2" />,
};

/** One of them; decorative unless it has a label. */
export function Shape({ name, label, size = 16 }: { readonly name: string; readonly label?: string; readonly size?: number }) {
  return (
    <svg class="shape" width={size} height={size} viewBox="0 0 16 16" {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" })}>
      {PATHS[name] ?? PATHS.dot}
    </svg>
  );
}
