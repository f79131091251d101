/** One process: who it is, what it says, and what may be done. */

import type { FunctionComponent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ProcessHandle } from "natsproc";

import { Composer } from "./composer.tsx";
import { fleet, known, now } from "./fleet.ts";
import type { Process } from "./fleet.ts";
import { isObject } from "./fold.ts";
import { LongList } from "./list.tsx";
import { ReplayView } from "./replay-view.tsx";
import { go, place } from "./route.ts";
import { Progress, TimelineRow } from "./rows.tsx";
import { me, mesh, phase } from "./session.ts";
import { Shape } from "./shapes.tsx";
import { StateMark } from "./state-mark.tsx";
import { Timeline } from "./timeline.ts";
import { Tray, Verbs } from "./verbs.tsx";
import { duration, plural, visible } from "./words.ts";

const SOON = 250; // milliseconds

/** The charts, which are fetched when somebody first looks at them. */
function LateMetrics(props: { readonly handle: ProcessHandle; readonly name: string }) {
  const [View, setView] = useState<FunctionComponent<typeof props> | null>(null);
  useEffect(() => void import("./metrics-view.tsx").then((module) => setView(() => module.default)), []);
  return View ? <View {...props} /> : <p class="empty">Reading…</p>;
}

/** The timeline that is looked at, for the keyboard. */
export let current: { readonly timeline: Timeline; readonly scroller: HTMLDivElement | null } | null = null;

export function ProcessView({ name }: { readonly name: string }) {
  const found = mesh.value;
  const process = fleet.value.get(name);
  const scroller = useRef<HTMLDivElement>(null);
  const timeline = useMemo(() => (found ? new Timeline(found.process(name)) : null), [found, name]);
  useEffect(() => () => timeline?.close(), [timeline]);
  useEffect(() => {
    current = timeline && { timeline, get scroller() { return scroller.current; } };
    if (navigator.userActivation?.hasBeenActive) scroller.current?.focus({ preventScroll: true });
    return () => void (current = null);
  }, [timeline]);
  useEffect(() => {
    const last = timeline?.last?.run ?? 0;
    if (!timeline || !process || process.ended) return;
    if (process.run > last && last) timeline.again();
    if (timeline.standing.value !== "absent") return;
    const later = setTimeout(() => timeline.again(), SOON);
    return () => clearTimeout(later);
  }, [timeline, process?.run, process?.ended, timeline?.standing.value]);
  const view = place.value.view;
  if (!timeline || !found) return <main class="process" aria-busy="true" />;
  return (
    <main class="process" id="main">
      <Header name={name} process={process} timeline={timeline} />
      {view === "replay" ? (
        <ReplayView handle={timeline.handle} name={name} />
      ) : view === "metrics" ? (
        <LateMetrics key={process?.run} handle={timeline.handle} name={name} />
      ) : (
        <>
          <Timed timeline={timeline} scroller={scroller} name={name} />
          <Tray process={name} timeline={timeline} />
          {process && phase.value !== "over" && <Composer process={process} />}
        </>
      )}
    </main>
  );
}

function Header({ name, process, timeline }: { readonly name: string; readonly process: Process | undefined; readonly timeline: Timeline }) {
  const [namespace, id] = name.split("/");
  return (
    <header class="head">
      <div class="title">
        <button type="button" class="icon back" aria-label="Back to all processes" onClick={() => go("")}>
          <Shape name="back" />
        </button>
        <h1>
          {namespace !== "default" && <span class="space">{namespace}/</span>}
          {id}
        </h1>
        {process ? (
          <span role="status">
            <StateMark state={process.state} />
          </span>
        ) : (
          known.value && <span class="soft">nothing of it is known here</span>
        )}
        {process && <Viewers process={process} />}
      </div>
      {process && <Verbs process={process} />}
      {process && <Facts process={process} />}
      <Views name={name} process={process} timeline={timeline} />
    </header>
  );
}

/** The faces of a process, where there is more than its timeline. */
function Views({ name, process, timeline }: { readonly name: string; readonly process: Process | undefined; readonly timeline: Timeline }) {
  const { view } = place.value;
  const measured = view === "metrics" || timeline.rows.value.some((row) => row.kind === "event" && row.type === "metric");
  const over = view === "replay" || !!process?.ended;
  if (!measured && !over) return null;
  const faces = [["", "Timeline"], ...(measured ? [["metrics", "Metrics"]] : []), ...(over ? [["replay", "Replay"]] : [])] as const;
  return (
    <div class="tabs views" role="group" aria-label="View">
      {faces.map(([face, text]) => (
        <button type="button" class="tab" key={face} aria-pressed={view === face} onClick={() => go(name, face)}>
          {text}
        </button>
      ))}
    </div>
  );
}

function Facts({ process }: { readonly process: Process }) {
  const { kind, node, run, started, ended, title, labels, parent, goneSince, state } = process;
  const begun = Date.parse(started);
  const length = (ended ? Date.parse(ended) : now.value) - begun;
  const parentName = parent && (parent.includes("/") ? parent : `${process.namespace}/${parent}`);
  return (
    <p class="facts">
      {title && <code title={title}>{visible(title)}</code>}
      <span>{kind}</span>
      <span>
        on <span class="node">{node}</span>
      </span>
      {run > 1 && <span>run {run}</span>}
      {begun > 0 && <span>{ended ? `ran ${duration(length / 1000)}` : `for ${duration(length / 1000)}`}</span>}
      {state === "unreachable" && goneSince && <span class="tone-bad">since {duration((now.value - Date.parse(goneSince)) / 1000)}</span>}
      {parentName && (
        <button type="button" class="link" onClick={() => go(parentName)}>
          child of {parent}
        </button>
      )}
      {Object.entries(labels).map(([key, value]) => (
        <span class="label" key={key}>
          {visible(key)}={visible(value)}
        </span>
      ))}
    </p>
  );
}

function Viewers({ process }: { readonly process: Process }) {
  const others = Object.entries(process.viewers).filter(([who]) => who !== me.value);
  const here = process.viewers[me.value] ?? 0;
  if (!others.length && here < 2) return null;
  const names = others.map(([who, count]) => (count > 1 ? `${who} (${count})` : who));
  if (here > 1) names.push(`you, in ${here} places`);
  return (
    <span class="viewers" title={`Watching: ${names.join(", ")}`}>
      <Shape name="eye" />
      <span>{names.slice(0, 3).join(", ")}{names.length > 3 && ` and ${names.length - 3} more`}</span>
    </span>
  );
}

function Timed({ timeline, scroller, name }: { readonly timeline: Timeline; readonly scroller: { current: HTMLDivElement | null }; readonly name: string }) {
  const { standing, trouble, unseen, following, reading, atStart, rows } = timeline;
  const last = rows.value.at(-1);
  const progress = last?.kind === "event" && last.type === "progress" && isObject(last.data) ? last.data : null;
  return (
    <div class="timed">
      <div class="scroller" ref={scroller} tabIndex={0} role="region" aria-label={`What ${name} says`} aria-busy={standing.value === "reading"}>
        <p class="edge" aria-live="off">
          {reading.value ? "Reading what was before…" : atStart.value && rows.value.length ? "The beginning" : ""}
        </p>
        <LongList timeline={timeline} scroller={scroller}>
          {(row, before) => <TimelineRow row={row} before={before} process={name} />}
        </LongList>
        {!rows.value.length && standing.value !== "reading" && !trouble.value && <p class="empty">It has said nothing yet.</p>}
        {trouble.value && phase.value !== "over" && (
          <p class="empty tone-bad" role="alert">
            {trouble.value}
          </p>
        )}
      </div>
      <div class="jumps">
        {!following.value && (
          <button type="button" class="pill" onClick={() => timeline.toEnd()}>
            <Shape name="down" />
            {unseen.value ? `${plural(unseen.value, "new event")}` : "Follow the end"}
          </button>
        )}
        {!atStart.value && !following.value && (
          <button type="button" class="pill quiet" onClick={() => timeline.toStart()}>
            <Shape name="up" />
            Jump to the beginning
          </button>
        )}
      </div>
      {progress && typeof progress.total === "number" && (
        <div class="thin" aria-hidden="true">
          <Progress data={progress} />
        </div>
      )}
    </div>
  );
}
