/** One row of a timeline: what was said, when, and by whom. */

import { Component } from "preact";

import { deeds, words } from "./acting.ts";
import { isObject } from "./fold.ts";
import type { EventRow, LineRow, NoticeRow, Row, TextRow } from "./fold.ts";
import { Json } from "./json.tsx";
import { paletteColour } from "./lines.ts";
import type { Span, Style } from "./lines.ts";
import { Question } from "./question.tsx";
import { me } from "./session.ts";
import { Shape } from "./shapes.tsx";
import { faceOf } from "./states.ts";
import { brief, bytes, clock, exactly, number, plural, visible } from "./words.ts";

export interface RowProps {
  readonly row: Row;
  /** of the row before it, whose time need not be said twice */
  readonly before: Row | undefined;
  readonly process: string;
}

/** A row on its grid: time, mark, what is said. */
export class TimelineRow extends Component<RowProps> {
  /** A row that is the same is not drawn again, unless a signal that it shows has changed. */
  override shouldComponentUpdate({ row, before, process }: RowProps): boolean {
    return row !== this.props.row || before?.time !== this.props.before?.time || process !== this.props.process;
  }

  override render({ row, before, process }: RowProps) {
    if (row.kind === "line") return <OutputLine row={row} before={before} />;
    if (row.kind === "text") return <StreamedText row={row} before={before} />;
    if (row.kind === "notice") return <Noticed row={row} process={process} />;
    return <Said row={row} before={before} process={process} />;
  }
}

function When({ row, before }: { readonly row: Row; readonly before: Row | undefined }) {
  const time = clock(row.time);
  const repeated = before !== undefined && clock(before.time) === time;
  return (
    <time class={repeated ? "when again" : "when"} dateTime={row.time} title={`${exactly(row.time)} · event ${row.first}${row.last > row.first ? `–${row.last}` : ""}`}>
      {time}
    </time>
  );
}

function OutputLine({ row, before }: { readonly row: LineRow; readonly before: Row | undefined }) {
  const error = row.stream === "stderr";
  return (
    <div class={`row line${error ? " stderr" : ""}`}>
      <When row={row} before={before} />
      <span class="mark" title={error ? "stderr" : undefined}>
        {error && <span class="hidden">stderr </span>}
      </span>
      <span class="screen">{row.spans.length ? row.spans.map(painted) : "\u200b"}</span>
    </div>
  );
}

function painted({ text, style }: Span, index: number) {
  const shown = visible(text);
  if (!style.marks && style.fg === -1 && style.bg === -1) return shown;
  const { names, colours } = look(style);
  return (
    <span key={index} class={names} style={colours}>
      {shown}
    </span>
  );
}

/** Classes for what the themes know, colours of their own for the rest, drawn towards the text's so that they stay legible. */
function look({ fg, bg, marks }: Style) {
  const [front, back] = marks.includes("v") ? [bg, fg] : [fg, bg];
  const names = [...marks].map((mark) => `m-${mark}`);
  const colours: Record<string, string> = {};
  if (typeof front === "number" && front >= 0 && front < 16) names.push(`fg-${front}`);
  else if (front !== -1) colours.color = `color-mix(in oklab, ${colour(front)}, var(--text) 35%)`;
  if (typeof back === "number" && back >= 0 && back < 16) names.push(`bg-${back}`);
  else if (back !== -1) colours.backgroundColor = `color-mix(in oklab, ${colour(back)}, var(--bg) 70%)`;
  return { names: names.join(" "), colours };
}

function colour(value: number | string): string {
  return typeof value === "number" ? paletteColour(value) : value;
}

function StreamedText({ row, before }: { readonly row: TextRow; readonly before: Row | undefined }) {
  return (
    <div class={`row speech${row.more ? " more" : ""}`}>
      <When row={row} before={before} />
      <span class="mark">{!row.more && <Shape name="text" />}</span>
      <div class="body">
        {!row.more && row.stream && <span class="tag">{visible(row.stream)}</span>}
        <p class="streamed">
          {visible(row.text)}
          {row.open && <span class="caret" aria-hidden="true" />}
        </p>
      </div>
    </div>
  );
}

function Noticed({ row, process }: { readonly row: NoticeRow; readonly process: string }) {
  const [shape, tone, text] = notice(row, process);
  return (
    <div class={`row notice tone-${tone}`} role="note">
      <span class="when" />
      <span class="mark">
        <Shape name={shape} />
      </span>
      <span class="body">{text}</span>
    </div>
  );
}

function notice({ type, data }: NoticeRow, process: string): [shape: string, tone: string, text: string] {
  if (type === "gap") {
    const count = data.to - data.from + 1;
    return ["warn", "attention", `${plural(count, "event")} (${data.from} to ${data.to}) ${count === 1 ? "is" : "are"} gone: the server kept only what came later.`];
  }
  if (type === "takeover") return ["swap", "hold", `A new owner took over: epoch ${data.epoch}. What follows is its own.`];
  if (type === "unreachable") {
    return ["ring", "bad", `Its node ${data.node ?? ""} does not answer. It may come back; \`natsproc kill ${process}\` on a machine of the mesh ends the run.`];
  }
  const { word, shape } = faceOf(data.status ?? "");
  return [shape, "quiet", `Run ${data.run} is over: ${word}${data.code ? `, exit code ${data.code}` : ""}. Nothing more comes until it is started again.`];
}

function Said({ row, before, process }: { readonly row: EventRow; readonly before: Row | undefined; readonly process: string }) {
  const { shape, tone, kind, body } = saying(row, process);
  return (
    <div class={`row ${kind}`}>
      <When row={row} before={before} />
      <span class={`mark tone-${tone}`}>{shape && <Shape name={shape} />}</span>
      <div class="body">
        {body}
        <OurReceipt cause={row.cause} offset={row.first} />
      </div>
    </div>
  );
}

interface Saying {
  readonly shape: string;
  readonly tone: string;
  readonly kind: string;
  readonly body: preact.ComponentChildren;
}

function saying(row: EventRow, process: string): Saying {
  const data = isObject(row.data) ? row.data : null;
  const known = data && SAYINGS[row.type];
  if (known) return known(data, row, process);
  return { shape: "dot", tone: "faint", kind: "said", body: <Tagged tag={row.type} value={row.data} name={row.key} /> };
}

function Tagged({ tag, value, name }: { readonly tag: string; readonly value: unknown; readonly name: string }) {
  return (
    <>
      <span class="tag">{visible(tag)}</span> {value !== null && <Json value={value} name={name} />}
    </>
  );
}

/** Who it was, and whether that is only what they say. */
function Who({ data }: { readonly data: Record<string, any> }) {
  const name = typeof data.sender === "string" && data.sender ? data.sender : "someone";
  return (
    <>
      <b class={name === me.value ? "who mine" : "who"}>{name === me.value ? "you" : visible(name)}</b>
      {data.verified === false && <span class="faint"> (unverified)</span>}
    </>
  );
}

function Reason({ data, name }: { readonly data: Record<string, any>; readonly name: string }) {
  return (
    <>
      {data.reason && <span class="soft">: {brief(data.reason, 500)}</span>}
      {data.why && <span class="soft"> ({brief(data.why, 500)})</span>}
      {data.message !== undefined && data.message !== null && (
        <div class="quote">
          <Json value={data.message} name={name} />
        </div>
      )}
    </>
  );
}

const begins =
  (word: string) =>
  (data: Record<string, any>): Saying => ({
    shape: "play",
    tone: "good",
    kind: "milestone",
    body: (
      <>
        <b>{word}</b>{" "}
        <span class="soft">
          {brief(data.kind)} on {brief(data.host ?? data.node ?? "?")}
          {data.pid !== undefined && `, pid ${data.pid}`}
          {data.checkpoint !== undefined && `, from its checkpoint at event ${data.checkpoint}`}
        </span>
        {data.title && <code class="command">{brief(data.title, 400)}</code>}
      </>
    ),
  });

const commanded =
  (word: string, shape: string, tone: string) =>
  (data: Record<string, any>, row: EventRow): Saying => ({
    ...{ shape, tone, kind: "act" },
    body: (
      <>
        <Who data={data} /> {word}
        <Reason data={data} name={row.key} />
      </>
    ),
  });

const LEVELS: Readonly<Record<string, string>> = { debug: "faint", warning: "attention", warn: "attention", error: "bad", critical: "bad" };

const SAYINGS: Readonly<Record<string, (data: Record<string, any>, row: EventRow, process: string) => Saying>> = {
  started: begins("Started"),
  restarted: begins("Started again"),
  recovered: begins("Recovered"),
  exited: (data, row) => {
    const { word, shape, tone } = faceOf(String(data.status ?? ""));
    return {
      ...{ shape, tone: tone === "quiet" && data.status === "completed" ? "good" : tone, kind: "milestone" },
      body: (
        <>
          <b>{word[0]!.toUpperCase() + word.slice(1)}</b>
          {(data.code ? true : false) && <span class="soft">, exit code {brief(data.code)}</span>}
          {data.signal && <span class="soft"> by signal {brief(data.signal)}</span>}
          {data.error && data.error !== data.status && <pre class="error">{visible(String(data.error).slice(0, 4000))}</pre>}
          {data.result !== undefined && data.result !== null && (
            <div class="quote">
              <Json value={data.result} name={row.key} />
            </div>
          )}
        </>
      ),
    };
  },
  interrupted: commanded("interrupted it", "hand", "attention"),
  paused: commanded("paused it", "bars", "hold"),
  resumed: commanded("let it go on", "play", "good"),
  cancelled: commanded("cancelled it", "slash", "attention"),
  killed: commanded("killed it", "cross", "bad"),
  refused: (data) => ({
    ...{ shape: "cross", tone: "bad", kind: "act" },
    body: (
      <>
        {data.verb ? brief(data.verb) : "A command"} by <Who data={data} /> was refused<span class="soft">: {brief(data.why, 500)}</span>
      </>
    ),
  }),
  received: (data, row) => ({
    ...{ shape: "person", tone: data.refused ? "bad" : "accent", kind: "act message" },
    body: (
      <>
        <Who data={data} />
        {data.when && data.when !== "idle" && <span class="tag">{brief(data.when)}</span>}
        {data.refused ? (
          <span class="soft">’s message was refused: {brief(data.refused, 500)}</span>
        ) : (
          <div class="bubble">
            <Json value={"data" in data ? data.data : `message ${data.message}`} name={row.key} />
          </div>
        )}
      </>
    ),
  }),
  replied: (data, row) => ({
    ...{ shape: "reply", tone: "faint", kind: "act message" },
    body: (
      <>
        <span class="soft">replied to</span> <Who data={data} />
        <div class="bubble ours">
          <Json value={data.data} name={row.key} />
        </div>
      </>
    ),
  }),
  asked: (data, row, process) => ({ shape: "question", tone: "attention", kind: "act", body: <Question data={data} row={row} process={process} /> }),
  answered: (data) => ({
    ...{ shape: "check", tone: data.sender ? "good" : "faint", kind: "act" },
    body: data.sender ? (
      <>
        <Who data={data} /> answered <b>{brief(data.value, 500)}</b>
      </>
    ) : (
      <span class="soft">Nobody answered: {brief(data.why, 500)}</span>
    ),
  }),
  turn_began: (data, row) => ({
    ...{ shape: "", tone: "faint", kind: "turn" },
    body: (
      <span class="soft">
        Turn {row.first}
        {data.sender && (
          <>
            {" for "}
            <Who data={data} />
          </>
        )}
      </span>
    ),
  }),
  turn_ended: (data) => ({
    ...{ shape: "", tone: "faint", kind: "turn over" },
    body: (
      <span class="faint">
        Turn {brief(data.turn)} {brief(data.status)}
        {data.error && `: ${brief(data.error, 500)}`}
      </span>
    ),
  }),
  log: (data, row) => {
    const level = String(data.level ?? "info");
    const { level: _, text, ...fields } = data;
    return {
      ...{ shape: LEVELS[level] === "bad" || LEVELS[level] === "attention" ? "warn" : "", tone: LEVELS[level] ?? "faint", kind: `said log level-${LEVELS[level] ?? "info"}` },
      body: (
        <>
          {level !== "info" && <span class={`tag tone-${LEVELS[level] ?? "faint"}`}>{visible(level)}</span>} <Json value={text} name={`${row.key}.text`} />
          {Object.keys(fields).length > 0 && <Fields fields={fields} name={row.key} />}
        </>
      ),
    };
  },
  progress: (data, row) => ({ shape: "", tone: "accent", kind: `said progress${row.stale ? " stale" : ""}`, body: <Progress data={data} bare={row.stale} /> }),
  metric: (data, row) => ({ shape: "chart", tone: "faint", kind: "said metric", body: <Fields fields={data} name={row.key} /> }),
  checkpointed: (data) => ({
    ...{ shape: "save", tone: "faint", kind: "said" },
    body: <span class="soft">Saved its state: {bytes(Number(data.size) || 0)}{data.version !== undefined && `, version ${brief(data.version)}`}</span>,
  }),
  dropped: (data) => ({
    ...{ shape: "warn", tone: "attention", kind: "act" },
    body: <>{plural(Number(data.count) || 0, "event")} ({bytes(Number(data.bytes) || 0)}) found no room and would have been here.</>,
  }),
  failed: (data) => ({ shape: "cross", tone: "bad", kind: "act", body: <>An event was refused by the server: {brief(data.why, 500)}</> }),
};

/** Fields as small pairs; nested ones unfold. */
function Fields({ fields, name }: { readonly fields: Record<string, any>; readonly name: string }) {
  return (
    <span class="fields">
      {Object.entries(fields)
        .slice(0, 40)
        .map(([key, value]) => (
          <span class="field" key={key}>
            <span class="key">{visible(key)}</span> {typeof value === "object" && value !== null ? <Json value={value} name={`${name}.${key}`} /> : <span class="value">{typeof value === "number" ? number(value) : brief(value)}</span>}
          </span>
        ))}
    </span>
  );
}

/** How far something is: a bar where its length is known. */
export function Progress({ data, bare = false }: { readonly data: Record<string, any>; readonly bare?: boolean | undefined }) {
  const { done, total, text } = data;
  const known = typeof done === "number" && typeof total === "number" && total > 0;
  const share = known ? Math.min(1, Math.max(0, done / total)) : 0;
  return (
    <>
      {known && !bare && (
        <span class="bar" role="progressbar" aria-valuenow={Math.round(share * 100)} aria-valuemin={0} aria-valuemax={100} aria-label={brief(text) || "progress"}>
          <span class="filled" style={{ width: `${share * 100}%` }} />
        </span>
      )}
      <span class="amount">
        {known ? `${Math.floor(share * 100)} %` : ""} <span class="soft">{`${brief(done)}${known ? ` / ${brief(total)}` : ""}`}</span>
      </span>
      {text && <span class="soft clip">{brief(text)}</span>}
    </>
  );
}

/** What came of a command or message of ours, at the event that records it. */
function OurReceipt({ cause, offset }: { readonly cause: unknown; readonly offset: number }) {
  if (typeof cause !== "string") return null;
  const deed = deeds.value.find((one) => one.id === cause);
  if (!deed || deed.outcome === "sending" || (deed.offset && deed.offset !== offset)) return null;
  const message = deed.verb === "message";
  return (
    <span class={`receipt ${deed.outcome}`} title={deed.why || undefined}>
      <Shape name={deed.outcome === "refused" ? "cross" : "check"} size={12} />
      your {deed.verb} · {message ? "taken" : words(deed.outcome)} · {deed.took} ms
    </span>
  );
}
