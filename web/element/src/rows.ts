/** The rows of a view: events and notices as nodes, of which so many are kept. Text of others is text, never markup. */

import type { Item, Json, ProcessEvent } from "natsproc";

import { paletteColour, Pen } from "../../console/src/lines.ts";
import type { Line, Paper, Span, Style } from "../../console/src/lines.ts";
import { brief, clock, exactly, visible } from "../../console/src/words.ts";
import { describe, noticed } from "./describe.ts";
import type { Tone } from "./describe.ts";

const TEXT = 64 * 1024; // characters of one streamed text
const STREAMS = 200; // that are known at once: a process may make up names without end

/** Draws items into `box`, at most `limit` rows of them; new rows go in when `flush` is called. */
export class Rows implements Paper {
  readonly #pens = new Map<string, Pen>();
  readonly #lines = new Map<Line, HTMLElement>();
  readonly #changed = new Set<Line>();
  readonly #streams = new Map<string, { first: number; row: HTMLElement; size: number }>();
  #stretch: Line[] = []; // what was written without a break
  #open = ""; // what the last row goes on with
  #progress: HTMLElement | null = null;
  #fresh: HTMLElement[] = [];
  #count = 0;

  constructor(
    private readonly box: HTMLElement,
    private readonly process: string,
    readonly limit: number,
  ) {}

  show(item: Item): void {
    if (item.kind === "notice") {
      const [text, tone] = noticed(item, this.process);
      if (text) this.#close().#row("notice", tone).append(text);
      return;
    }
    const { type, data } = item;
    const said = typeof data === "object" && data !== null ? (data as Record<string, Json>) : {};
    if (type === "output") this.#output(String(said.stream ?? ""), outputText(data));
    else if (type === "token") this.#token(item, String(said.stream ?? ""), String(said.text ?? ""));
    else if (type === "text") this.#text(item, String(said.stream ?? ""), said);
    else if (type === "progress") this.#advance(item, said);
    else if (type !== "screen") this.#event(item);
  }

  /** Say something of the view's own. */
  say(text: string, tone: Tone): void {
    this.#close().#row("notice", tone).append(text);
  }

  /** Put in what is new, and drop the oldest above the limit; returns how many rows are new. */
  flush(): number {
    const fresh = this.#fresh;
    this.#fresh = [];
    for (const row of fresh.splice(0, Math.max(0, fresh.length - this.limit))) row.remove();
    for (const line of this.#changed) this.#draw(line);
    this.#changed.clear();
    this.box.append(...fresh);
    this.#count += fresh.length;
    for (; this.#count > this.limit; this.#count--) this.box.firstElementChild?.remove();
    return fresh.length;
  }

  // Paper: where the pens of output write

  begin(line: Line): void {
    this.#stretch.push(line);
    if (this.#stretch.length > 256) this.#forget(this.#stretch.shift()!);
    this.#lines.set(line, this.#row("output"));
    this.#changed.add(line);
    if (this.#changed.size > this.limit) this.#changed.delete(this.#changed.values().next().value!);
  }

  change(line: Line): void {
    if (this.#lines.has(line)) this.#changed.add(line);
  }

  above(count: number): Line | undefined {
    return this.#stretch.at(-1 - count);
  }

  #forget(line: Line): void {
    if (this.#changed.delete(line)) this.#draw(line);
    this.#lines.delete(line);
  }

  #draw(line: Line): void {
    this.#lines.get(line)?.replaceChildren(...line.spans.map(spanOf));
  }

  #output(stream: string, text: string): void {
    if (this.#open !== `output ${stream}`) this.#close();
    this.#open = `output ${stream}`;
    let pen = this.#pens.get(stream);
    if (!pen) kept(this.#pens, stream, (pen = new Pen()));
    pen.write(text, this);
  }

  #token(event: ProcessEvent, stream: string, text: string): void {
    let open = this.#streams.get(stream);
    if (!open || this.#open !== `token ${stream}`) {
      const { first = event.offset, size = 0 } = open ?? {};
      const row = this.#close().#headed(event, stream || "text", "accent");
      if (open) row.append("… ");
      kept(this.#streams, stream, (open = { first, row, size }));
      this.#open = `token ${stream}`;
    }
    if (open.size < TEXT) open.row.append(visible(text.slice(0, TEXT - open.size)) + (open.size + text.length > TEXT ? "…" : ""));
    open.size += text.length;
  }

  #text(event: ProcessEvent, stream: string, { text, first }: Record<string, Json>): void {
    const open = this.#streams.get(stream);
    this.#streams.delete(stream);
    this.#close();
    if (open && open.first <= first) return; // it was shown as it came
    this.#headed(event, stream || "text", "accent").append(brief(text, TEXT));
  }

  #advance(event: ProcessEvent, { done, total, text }: Record<string, Json>): void {
    if (!this.#progress) {
      this.#close().#open = "progress";
      this.#progress = this.#headed(event, "progress", "accent");
      this.#progress.append(document.createElement("progress"), document.createElement("span"));
    }
    const [bar, label] = [this.#progress.querySelector("progress")!, this.#progress.lastElementChild!];
    const known = typeof done === "number" && typeof total === "number" && total > 0;
    if (known) {
      bar.max = total;
      bar.value = done;
    } else bar.removeAttribute("value");
    bar.setAttribute("aria-label", brief(text ?? "progress"));
    label.textContent = [known ? `${Math.round((100 * done) / total)}%` : "", total == null ? brief(done) : `${brief(done)}/${brief(total)}`, brief(text)].filter(Boolean).join("  ");
  }

  #event(event: ProcessEvent): void {
    const [text, tone] = describe(event);
    const level = event.type === "log" ? event.data?.level : undefined;
    const body = document.createElement("span");
    body.className = tone;
    body.append(text);
    this.#close().#headed(event, brief(level ?? event.type, 40), tone).append(body);
  }

  #headed(event: ProcessEvent, label: string, tone: Tone): HTMLElement {
    const row = this.#row("event");
    const time = document.createElement("time");
    time.className = "time";
    time.title = `${exactly(event.time)}, event ${event.offset}`;
    time.append(clock(event.time));
    const type = document.createElement("span");
    type.className = `type ${tone}`;
    type.append(label);
    row.append(time, type);
    return row;
  }

  #row(kind: string, tone: Tone = ""): HTMLElement {
    const row = document.createElement("div");
    row.className = `row ${kind} ${tone}`.trim();
    row.part.add("row", kind);
    this.#fresh.push(row);
    return row;
  }

  /** Whatever comes next begins a row. */
  #close(): this {
    for (const pen of this.#pens.values()) pen.lift();
    for (const line of this.#stretch.splice(0)) this.#forget(line);
    this.#progress = null;
    this.#open = "";
    return this;
  }
}

/** What an output event holds, as text. */
function outputText(data: Json): string {
  if (typeof data !== "object" || data === null) return `${String(data)}\n`;
  if (typeof data.base64 !== "string") return String(data.text ?? "");
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(data.base64), (char) => char.charCodeAt(0)));
  } catch {
    return "";
  }
}

function spanOf({ text, style }: Span): Node | string {
  const shown = visible(text);
  if (style.fg === -1 && style.bg === -1 && !style.marks) return shown;
  const span = document.createElement("span");
  span.className = [...style.marks].filter((mark) => mark !== "v").join(" ");
  const [fg, bg] = style.marks.includes("v") ? [swapped(style.bg, "var(--bg)"), swapped(style.fg, "var(--fg)")] : [colour(style.fg), colour(style.bg)];
  if (fg) span.style.color = fg;
  if (bg) span.style.backgroundColor = bg;
  span.append(shown);
  return span;
}

function swapped(value: Style["fg"], own: string): string {
  return colour(value) || own;
}

function colour(value: Style["fg"]): string {
  if (typeof value === "string") return value;
  return value < 0 ? "" : value < 16 ? `var(--ansi-${value})` : paletteColour(value);
}

/** Put it into the map, which lets go of the oldest above so many. */
function kept<T>(map: Map<string, T>, name: string, value: T): void {
  map.set(name, value);
  if (map.size > STREAMS) map.delete(map.keys().next().value!);
}
