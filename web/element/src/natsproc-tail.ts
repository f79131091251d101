/** `<natsproc-tail src="/grant" process="r1">`: what a running process says, in a page of one's own. See README.md. */

import { BadName, BadPayload, connect, NatsprocError, NoServer, NoSuchProcess, ServerUnfit } from "natsproc";
import type { Item, Mesh, TailOptions } from "natsproc";

import { ended } from "./describe.ts";
import { Rows } from "./rows.ts";
import { styles } from "./styles.ts";

const ROWS = 2000;
const AT_END = 24; // pixels
const TURN_MS = 12; // of work, after which the page gets its turn
const RETRY_MS = 1000;
const MOST_RETRY_MS = 15_000;

type Credentials = string | (() => string | Promise<string>);

/** The back end of the page gives no credential; `passes` says whether asking again may help. */
class NotGiven extends Error {
  constructor(
    text: string,
    readonly passes: boolean,
  ) {
    super(text);
  }
}

export class NatsprocTail extends HTMLElement {
  static readonly observedAttributes = ["src", "process", "namespace", "after", "n", "compact", "rows"];

  readonly #box = document.createElement("div");
  readonly #status = document.createElement("div");
  readonly #button = document.createElement("button");
  #credentials: Credentials | undefined;
  #running: AbortController | null = null;
  #changing = false;
  #cursor = "";
  #atEnd = true;
  #unseen = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [styles()];
    this.#box.className = "rows";
    this.#box.part.add("rows");
    this.#box.role = "log";
    this.#box.tabIndex = 0;
    this.#box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#status.className = "status";
    this.#status.part.add("status");
    this.#status.role = "status";
    this.#button.part.add("to-end");
    this.#button.type = "button";
    this.#button.hidden = true;
    this.#button.addEventListener("click", () => this.#toEnd());
    root.append(this.#box, this.#status, this.#button);
  }

  /** A credential in one line, or what gets one; in place of `src`. It is called again before a credential ends. */
  get credentials(): Credentials | undefined {
    return this.#credentials;
  }

  set credentials(value: Credentials | undefined) {
    this.#credentials = value;
    this.#change();
  }

  /** Of the last event shown: where another view could go on (`after`). */
  get cursor(): string {
    return this.#cursor;
  }

  connectedCallback(): void {
    if (Object.hasOwn(this, "credentials")) {
      // it was set before this class was there
      const { credentials } = this;
      delete (this as Partial<this>).credentials;
      this.#credentials = credentials;
    }
    if (!this.#running) this.#change();
  }

  disconnectedCallback(): void {
    // in a turn of its own: one that is only moved goes on
    queueMicrotask(() => this.isConnected || this.#stop());
  }

  attributeChangedCallback(_: string, before: string | null, now: string | null): void {
    if (before !== now) this.#change();
  }

  /** Begin anew, once for all that is set in one go. */
  #change(): void {
    if (this.#changing) return;
    this.#changing = true;
    queueMicrotask(() => {
      this.#changing = false;
      if (this.isConnected) this.#begin();
    });
  }

  #stop(): void {
    this.#running?.abort();
    this.#running = null;
  }

  #begin(): void {
    this.#stop();
    const process = this.getAttribute("process") ?? "";
    this.#cursor = "";
    this.#box.replaceChildren();
    this.#box.ariaLabel = `What ${process} says`;
    this.#toEnd();
    if (!process || !(this.#credentials ?? this.getAttribute("src"))) {
      this.#say(process ? "set src, or the property credentials" : "set process");
      return;
    }
    const running = (this.#running = new AbortController());
    const rows = new Rows(this.#box, process, Math.max(1, this.#number("rows") ?? ROWS));
    void this.#follow(process, rows, running.signal);
  }

  async #follow(process: string, rows: Rows, signal: AbortSignal): Promise<void> {
    let wait = RETRY_MS;
    while (!signal.aborted) {
      const before = this.#cursor;
      try {
        this.#say("connecting …");
        return await this.#once(process, rows, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#say(sentence(error));
        if (!passes(error)) return;
        if (this.#cursor !== before) wait = RETRY_MS;
        await sleep(wait, signal);
        wait = Math.min(2 * wait, MOST_RETRY_MS);
      }
    }
  }

  /** Show it to its end. Throws what the client does, and NotGiven. */
  async #once(process: string, rows: Rows, signal: AbortSignal): Promise<void> {
    const mesh = await connect({ credentials: () => this.#credential(signal), namespace: this.getAttribute("namespace") ?? "default" });
    const up = (): void => this.#say("");
    const forget = [mesh.on("up", up), mesh.on("down", () => this.#say("the connection is lost; it comes back by itself"))];
    up();
    try {
      await this.#show(mesh, process, rows, signal);
    } finally {
      for (const each of forget) each();
      void mesh.close();
    }
  }

  async #show(mesh: Mesh, process: string, rows: Rows, signal: AbortSignal): Promise<void> {
    this.#box.ariaBusy = "true"; // what is old is not read out
    let turn = performance.now();
    let due = false;
    const flush = (): void => {
      due = false;
      if (!signal.aborted) this.#grown(rows.flush());
    };
    for await (const item of mesh.process(process).tail({ ...this.#start(), compact: this.hasAttribute("compact"), signal })) {
      if (item.kind === "event") this.#cursor = item.cursor;
      if (this.#tell(item)) rows.show(item);
      if (item.type === "caught_up") this.#box.ariaBusy = "false";
      if (item.kind === "notice" && item.type === "ended") this.#say(`ended: ${ended(item.data)}`);
      if (!due) {
        due = true;
        setTimeout(flush, 16);
      }
      if (performance.now() - turn > TURN_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        turn = performance.now();
      }
    }
    flush();
    this.#box.ariaBusy = "false";
  }

  /** Where to begin, or to go on. */
  #start(): TailOptions {
    const after = this.#cursor || this.getAttribute("after");
    const n = this.#number("n");
    return after ? { after } : n === undefined ? {} : { n };
  }

  #number(name: string): number | undefined {
    const value = this.getAttribute(name);
    return value && /^\d+$/.test(value) ? Number(value) : undefined;
  }

  /** Give it to the page; whether it is to be shown. */
  #tell(item: Item): boolean {
    return this.dispatchEvent(new CustomEvent(`natsproc-${item.kind}`, { detail: item, bubbles: true, composed: true, cancelable: true }));
  }

  async #credential(signal: AbortSignal): Promise<string> {
    if (this.#credentials !== undefined) return typeof this.#credentials === "string" ? this.#credentials : this.#credentials();
    const src = this.getAttribute("src") ?? "";
    let answer: Response;
    try {
      answer = await fetch(new URL(src, this.baseURI), { cache: "no-store", signal });
    } catch (error) {
      throw new NotGiven(`${src} is not reached: ${(error as Error).message}`, true);
    }
    if (!answer.ok) throw new NotGiven(`${src} gives no credential: ${answer.status} ${answer.statusText}`, answer.status >= 500 || answer.status === 429);
    return answer.text();
  }

  #say(text: string): void {
    this.#status.textContent = text;
  }

  #grown(count: number): void {
    if (this.#atEnd) this.#box.scrollTop = this.#box.scrollHeight;
    else if (count) {
      this.#unseen += count;
      this.#button.textContent = `↓ ${this.#unseen} new`;
      this.#button.hidden = false;
    }
  }

  #scrolled(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < AT_END;
    if (this.#atEnd) this.#toEnd();
  }

  #toEnd(): void {
    this.#atEnd = true;
    this.#unseen = 0;
    this.#button.hidden = true;
    this.#box.scrollTop = this.#box.scrollHeight;
  }
}

/** Whether trying again may help. */
function passes(error: unknown): boolean {
  if (error instanceof NotGiven) return error.passes;
  if (error instanceof BadName || error instanceof BadPayload) return false;
  return error instanceof NoServer || error instanceof ServerUnfit || error instanceof NoSuchProcess || !(error instanceof NatsprocError);
}

function sentence(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return error instanceof NoSuchProcess ? `${text}; waiting for it` : text;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

if (!customElements.get("natsproc-tail")) customElements.define("natsproc-tail", NatsprocTail);

declare global {
  interface HTMLElementTagNameMap {
    "natsproc-tail": NatsprocTail;
  }
}
