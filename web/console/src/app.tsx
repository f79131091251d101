/** The whole page: a bar on top, and below it the door, the fleet, or a process. */

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";

import { said, say } from "./acting.ts";
import { now, waiting } from "./fleet.ts";
import { FleetView, Search, Sidebar } from "./fleet-view.tsx";
import { parsePasted } from "./fragment.ts";
import { ProcessView } from "./process-view.tsx";
import { go, place } from "./route.ts";
import { begin, leave, lostAt, me, phase, rights, trouble } from "./session.ts";
import { Shape } from "./shapes.tsx";
import { cycle, theme } from "./theme.ts";
import { duration } from "./words.ts";

export const helping = signal(false);

const announced = new Set<string>();

/** Say once that somebody is waited for. */
function announce(key: string, text: string): void {
  if (announced.has(key)) return;
  announced.add(key);
  say(text);
}

export function App() {
  const { process } = place.value;
  const inside = phase.value !== "none";
  useEffect(() => {
    const asking = waiting.value.length ? `(${waiting.value.length}) ` : "";
    for (const each of waiting.value) for (const ask of each.asks) announce(`${each.key} ${ask.ask}`, `${each.id} asks: ${ask.question}`);
    document.title = `${asking}${process ? `${process.replace(/^default\//, "")} · ` : ""}natsproc`;
  }, [process, waiting.value]);
  return (
    <div class={`app${process ? " on-process" : ""}`}>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.querySelector<HTMLElement>(".scroller, #main a, #main button")?.focus())}>
        Skip to the content
      </a>
      <Bar inside={inside} />
      {phase.value === "over" && <Over />}
      {!inside ? (
        <Door />
      ) : process ? (
        <div class="split">
          <Sidebar />
          <ProcessView key={process} name={process} />
        </div>
      ) : (
        <FleetView />
      )}
      <Help />
      <p class="hidden" aria-live="polite" role="status">
        {said.value}
      </p>
    </div>
  );
}

function Bar({ inside }: { readonly inside: boolean }) {
  return (
    <header class="bar">
      <button type="button" class="logo" onClick={() => go("")} aria-label="natsproc: all processes">
        <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
          <rect width="32" height="32" rx="8" fill="var(--accent)" />
          <path d="M9 22V10l14 12V10" fill="none" stroke="var(--on-accent)" stroke-width="3" stroke-linecap="round" stroke-linejoin="round" />
        </svg>
        <span>natsproc</span>
      </button>
      {inside ? <Search /> : <span class="grow" />}
      <span class="grow" />
      {inside && <Link />}
      <button type="button" class="icon" aria-label={`Theme: ${theme.value}. Change it`} title={`Theme: ${theme.value}`} onClick={cycle}>
        <Shape name={{ light: "sun", dark: "moon", system: "half" }[theme.value]} />
      </button>
      <button type="button" class="icon wide-only" aria-label="Keyboard and help" title="Help (?)" onClick={() => (helping.value = true)}>
        <span aria-hidden="true">?</span>
      </button>
    </header>
  );
}

/** Whether the connection holds, as whom, and for how long. */
function Link() {
  const left = rights.value?.expires ? (rights.value.expires - now.value) / 1000 : null;
  const text = {
    none: "",
    connecting: "connecting…",
    up: "live",
    down: `no connection${lostAt.value ? ` for ${duration((now.value - lostAt.value) / 1000)}` : ""}, trying again`,
    over: "over",
  }[phase.value];
  const tone = { none: "faint", connecting: "faint", up: "good", down: "attention", over: "bad" }[phase.value];
  return (
    <span class={`link-state tone-${tone}`} title={trouble.value || `as ${me.value}`}>
      <Shape name={{ up: "disc", down: "ring", over: "cross" }[phase.value as string] ?? "dot"} />
      <span role="status" class="connection">
        {text}
      </span>
      {phase.value === "up" && <span class="soft wide-only">as {me.value}</span>}
      {phase.value === "up" && left !== null && left < 3600 && <span class="tone-attention">ends in {duration(left)}</span>}
    </span>
  );
}

function Over() {
  return (
    <div class="over-note" role="alert">
      <Shape name="warn" />
      <p>
        <b>{trouble.value}</b> What is shown here stays as it was. For a new link: <code>natsproc console</code>, or ask whoever gave you this one.
      </p>
      <button type="button" class="button" onClick={leave}>
        Use another link
      </button>
    </div>
  );
}

function Door() {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState("");
  const enter = (pasted: string): void => {
    const access = parsePasted(pasted);
    if (access) void begin(access);
    else setWrong("This is no link or line of natsproc’s: a line begins with natsproc_.");
  };
  return (
    <main class="door" id="main">
      <h1>An address for every running process</h1>
      <p>This page needs a link with a credential in it. On a machine of the mesh, type</p>
      <pre>natsproc console</pre>
      <p>or paste a link, or the line that <code>natsproc grant</code> printed:</p>
      <div class="choices">
        <input
          class="input secret"
          type="text"
          spellcheck={false}
          autocomplete="off"
          aria-label="Link or line"
          placeholder="natsproc_…"
          value={text}
          onInput={(event) => (setText(event.currentTarget.value), setWrong(""))}
          onPaste={(event) => {
            const pasted = event.clipboardData?.getData("text") ?? "";
            if (parsePasted(pasted)) enter(pasted);
          }}
          onKeyDown={(event) => event.key === "Enter" && enter(text)}
        />
        <button type="button" class="button primary" disabled={!text} onClick={() => enter(text)}>
          Open
        </button>
      </div>
      <p class="problem" role="alert">
        {wrong}
      </p>
      <p class="soft small">It stays in this tab, and goes to no one but the nats-server that it names.</p>
    </main>
  );
}

const KEYS: readonly (readonly [string, string])[] = [
  ["/", "search"],
  ["j k", "down and up in the list, or in what a process says"],
  ["Enter", "open"],
  ["Esc", "back, or out of a field"],
  ["g G", "to the beginning, to the end"],
  ["s", "send a message"],
  ["i", "interrupt, and say what to do instead"],
  ["p", "pause, or resume"],
  ["t m r", "its timeline, its metrics, its replay"],
  ["1 – 9", "answer what it asks with that choice"],
  ["?", "this"],
];

function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (helping.value && !dialog.current?.open) dialog.current?.showModal();
    if (!helping.value) dialog.current?.close();
  }, [helping.value]);
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="help-title" onClose={() => (helping.value = false)}>
      <h2 id="help-title">Keyboard</h2>
      <dl class="keys">
        {KEYS.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((key) => (key === "–" ? " – " : <kbd key={key}>{key}</kbd>))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="soft small">Closing this page stops nothing: what runs goes on.</p>
      <div class="choices">
        <button type="button" class="button" onClick={() => (helping.value = false)}>
          Close
        </button>
        <button type="button" class="button" onClick={() => (helping.value = false, leave())}>
          Forget this link
        </button>
      </div>
    </dialog>
  );
}
