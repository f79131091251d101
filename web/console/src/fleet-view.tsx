/** All processes: who waits for a person, what runs, what has ended. */

import { signal } from "@preact/signals";

import { filter, fleet, counted, kinds, known, namespaces, now, shown, waiting } from "./fleet.ts";
import type { Process } from "./fleet.ts";
import { asTree, EVERYTHING, GROUPS } from "./filter.ts";
import type { Branch, Group } from "./filter.ts";
import { Answers } from "./question.tsx";
import { go, place } from "./route.ts";
import { me, mesh } from "./session.ts";
import { Shape } from "./shapes.tsx";
import { StateMark } from "./state-mark.tsx";
import { brief, duration, plural, roughly, visible } from "./words.ts";

const AT_ONCE = 200; // rows that are drawn before somebody asks for more

/** The row that the keyboard is on. */
export const cursor = signal("");
const drawn = signal(AT_ONCE);

export function branches(): readonly Branch<Process>[] {
  return asTree(shown.value);
}

export function Search() {
  return (
    <label class="search">
      <Shape name="search" />
      <span class="hidden">Search processes</span>
      <input
        id="search"
        type="search"
        placeholder="Search"
        autocomplete="off"
        spellcheck={false}
        value={filter.value.text}
        onInput={(event) => (filter.value = { ...filter.value, text: event.currentTarget.value })}
      />
      <kbd aria-hidden="true">/</kbd>
    </label>
  );
}

export function Filters() {
  const { group, namespace, kind } = filter.value;
  return (
    <div class="filters">
      <div class="chips" role="group" aria-label="State">
        {GROUPS.map((one) => (
          <Chip key={one} group={one} chosen={group === one} />
        ))}
      </div>
      {namespaces.value.length > 1 && <Pick name="namespace" value={namespace} values={namespaces.value} />}
      {kinds.value.length > 1 && <Pick name="kind" value={kind} values={kinds.value} />}
    </div>
  );
}

const NAMES: Readonly<Record<Group, string>> = { all: "All", waiting: "Waiting for me", running: "Running", paused: "Paused", unreachable: "Unreachable", ended: "Ended" };

function Chip({ group, chosen }: { readonly group: Group; readonly chosen: boolean }) {
  const count = counted.value[group];
  if (!count && !chosen && group !== "all") return null;
  return (
    <button type="button" class={`chip ${group}`} aria-pressed={chosen} onClick={() => (filter.value = { ...filter.value, group: chosen ? "all" : group })}>
      {NAMES[group]} <span class="count">{count}</span>
    </button>
  );
}

function Pick({ name, value, values }: { readonly name: "namespace" | "kind"; readonly value: string; readonly values: readonly string[] }) {
  return (
    <label class="pick">
      <span class="hidden">{name}</span>
      <select value={value} onChange={(event) => (filter.value = { ...filter.value, [name]: event.currentTarget.value })}>
        <option value="">{`any ${name}`}</option>
        {values.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}

/** The fleet as a page of its own. */
export function FleetView() {
  const all = branches();
  return (
    <main class="fleet" id="main">
      {waiting.value.length > 0 && ["all", "waiting"].includes(filter.value.group) && <WaitingForMe />}
      <Filters />
      {all.length > 0 ? (
        <div class="table">
          <div class="columns" aria-hidden="true">
            {["State", "Process", "Kind", "Node", "Quiet for", "Age", "Watching"].map((title) => (
              <span key={title}>{title}</span>
            ))}
          </div>
          <ul aria-label="Processes">
            {all.slice(0, drawn.value).map(({ member, depth }) => (
              <FleetRow key={member.key} process={member} depth={depth} />
            ))}
          </ul>
        </div>
      ) : (
        <Nothing />
      )}
      {all.length > drawn.value && (
        <button type="button" class="button center" onClick={() => (drawn.value += 5 * AT_ONCE)}>
          {plural(all.length - drawn.value, "more process").replace("processs", "processes")}
        </button>
      )}
    </main>
  );
}

function Nothing() {
  if (!known.value) return <p class="empty" aria-busy="true">{mesh.value ? "Looking…" : ""}</p>;
  if (fleet.value.size) {
    return (
      <p class="empty">
        Nothing matches.{" "}
        <button type="button" class="link" onClick={() => (filter.value = EVERYTHING)}>
          Show everything
        </button>
      </p>
    );
  }
  return (
    <div class="empty">
      <p>Nothing runs here yet. Start something:</p>
      <pre>natsproc run --id hello -- ping localhost</pre>
    </div>
  );
}

function FleetRow({ process, depth }: { readonly process: Process; readonly depth: number }) {
  const { key, namespace, id, kind, node, state, title, started, ended, viewers, labels } = process;
  const others = Object.entries(viewers).filter(([who]) => who !== me.value);
  const open = (event: MouseEvent): void => {
    if (event.metaKey || event.ctrlKey || event.button) return;
    event.preventDefault();
    go(key);
  };
  return (
    <li>
    <a class={`process-row${ended ? " over" : ""}${cursor.value === key ? " here" : ""}`} href={`#p=${key}`} data-process={key} onClick={open}>
      <span class="c-state">
        <StateMark state={state} />
      </span>
      <span class="c-id" style={depth ? { paddingLeft: `${depth * 20}px` } : undefined}>
        {depth > 0 && <Shape name="fork" size={12} />}
        <span class="id">
          {namespace !== "default" && <span class="space">{namespace}/</span>}
          {id}
        </span>
        {title && <span class="what">{visible(title)}</span>}
        {Object.entries(labels).map(([name, value]) => (
          <span class="label" key={name}>
            {visible(name)}={visible(value)}
          </span>
        ))}
      </span>
      <span class="c-kind">
        {kind}
      </span>
      <span class="c-node" title={node}>
        {node}
      </span>
      <span class="c-quiet">
        {quietTime(process)}
      </span>
      <span class="c-age">
        {ended ? `${duration((Date.parse(ended) - Date.parse(started)) / 1000)}` : roughly((now.value - Date.parse(started)) / 1000)}
      </span>
      <span class="c-viewers">
        {others.length > 0 && (
          <span title={others.map(([who]) => who).join(", ")}>
            <Shape name="eye" size={14} /> {others.length}
            <span class="hidden"> watching</span>
          </span>
        )}
      </span>
    </a>
    </li>
  );
}

/** How long it has said nothing, or how long ago it ended. */
export function quietTime({ ended, heard, goneSince, state }: Process): string {
  if (ended) return `ended ${ago(Date.parse(ended))}`;
  if (state === "unreachable") return goneSince ? `gone ${roughly((now.value - Date.parse(goneSince)) / 1000)}` : "gone";
  return heard ? roughly((now.value - heard) / 1000) : "";
}

function ago(time: number): string {
  return `${roughly((now.value - time) / 1000)} ago`;
}

function WaitingForMe() {
  return (
    <section class="asks" aria-label="Waiting for me">
      {waiting.value.slice(0, 12).map((process) =>
        process.asks.map((ask) => (
          <article class="ask-card" key={`${process.key} ${ask.ask}`}>
            <button type="button" class="from" onClick={() => go(process.key)}>
              <StateMark state="waiting" bare />
              <span class="id">{process.namespace === "default" ? process.id : process.key}</span>
              <span class="soft">{process.kind}</span>
            </button>
            <p class="ask">{typeof ask.question === "string" ? visible(ask.question) : brief(ask.question, 500)}</p>
            <Answers process={process.key} ask={ask.ask} choices={ask.choices ?? []} />
          </article>
        )),
      )}
    </section>
  );
}

/** The fleet beside a process. */
export function Sidebar() {
  const all = branches();
  return (
    <nav class="sidebar" aria-label="Processes">
      <div class="chips small" role="group" aria-label="State">
        {GROUPS.filter((one) => one !== "paused").map((one) => (
          <Chip key={one} group={one} chosen={filter.value.group === one} />
        ))}
      </div>
      <div class="scroll">
        {all.slice(0, drawn.value).map(({ member, depth }) => (
          <SideRow key={member.key} process={member} depth={depth} />
        ))}
        {!all.length && <p class="empty small">Nothing matches.</p>}
      </div>
    </nav>
  );
}

function SideRow({ process, depth }: { readonly process: Process; readonly depth: number }) {
  const { key, namespace, id, state, ended, asks } = process;
  const here = place.value.process === key;
  const open = (event: MouseEvent): void => {
    if (event.metaKey || event.ctrlKey || event.button) return;
    event.preventDefault();
    go(key);
  };
  return (
    <a class={`side-row${ended ? " over" : ""}${cursor.value === key ? " here" : ""}`} href={`#p=${key}`} aria-current={here ? "page" : undefined} data-process={key} onClick={open} style={depth ? { paddingLeft: `${12 + depth * 14}px` } : undefined}>
      <StateMark state={!ended && asks.length && state === "running" ? "waiting" : state} bare />
      <span class="id">
        {namespace !== "default" && <span class="space">{namespace}/</span>}
        {id}
      </span>
      <span class="quiet">{ended ? "" : quietTime(process).replace("gone ", "")}</span>
    </a>
  );
}
