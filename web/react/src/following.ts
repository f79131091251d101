/** One process, followed: what it says and what is known of it, kept for whoever shows it. */

import type { Item, Mesh, NatsprocError, ProcessEvent, ProcessHandle, ProcessRecord, TailOptions } from "natsproc";

import { Store } from "./store.js";
import { Texts } from "./texts.js";
import type { StreamedText } from "./texts.js";

/** Offsets that retention took before they were read. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

/** How a run ended. */
export interface Ended {
  readonly run: number;
  readonly status: string;
  readonly code: number;
}

export interface ProcessState {
  /** the last `limit` of them, in order, each once */
  readonly events: readonly ProcessEvent[];
  readonly gaps: readonly Gap[];
  /** streamed texts as they grow, the oldest first */
  readonly texts: readonly StreamedText[];
  /** the last one of them */
  readonly text: string;
  /** what the registry says; null until it is known */
  readonly record: ProcessRecord | null;
  /** running, paused, waiting, unreachable; completed, failed, interrupted, cancelled, killed; "" until it is known */
  readonly state: string;
  /** what it waits for people to answer */
  readonly asks: ProcessRecord["asks"];
  /** who watches, and in how many places */
  readonly viewers: ProcessRecord["viewers"];
  /** all that was stored when it began has been read */
  readonly caughtUp: boolean;
  readonly connected: boolean;
  /** null while it runs */
  readonly ended: Ended | null;
  /** nobody owns it at the moment */
  readonly unreachable: boolean;
  readonly error: Error | null;
  /** where to go on: the `after` of a later page */
  readonly cursor: string;
}

export const UNKNOWN: ProcessState = {
  events: [], gaps: [], texts: [], text: "", record: null, state: "", asks: [], viewers: {},
  caughtUp: false, connected: false, ended: null, unreachable: false, error: null, cursor: "",
};

export interface FollowOptions extends Pick<TailOptions, "after" | "n" | "since" | "run" | "compact" | "announce"> {
  /** events kept */
  readonly limit: number;
  /** seconds for which it is kept when nobody shows it any more */
  readonly keep: number;
}

type Known = Omit<ProcessState, "events" | "texts" | "text" | "state" | "asks" | "viewers">;

export class Following extends Store<ProcessState> {
  readonly #handle: ProcessHandle;
  readonly #texts: Texts;
  #events: ProcessEvent[] = [];
  #known: Known = UNKNOWN;
  #expiry: ReturnType<typeof setTimeout> | undefined;
  #news: (() => void) | null = null;

  constructor(
    private readonly mesh: Mesh,
    id: string,
    private readonly options: FollowOptions,
    private readonly forget: () => void,
  ) {
    super(UNKNOWN);
    this.#handle = mesh.process(id);
    this.#texts = new Texts(options.limit);
    this.rest();
  }

  protected override rest(): void {
    clearTimeout(this.#expiry);
    this.#expiry = setTimeout(this.forget, this.options.keep * 1000);
  }

  protected override start(signal: AbortSignal): void {
    clearTimeout(this.#expiry);
    const look = (): void => this.#learn({ connected: this.mesh.connected });
    const forgets = [this.mesh.on("up", look), this.mesh.on("down", look)];
    signal.addEventListener("abort", () => {
      for (const forget of forgets) forget();
      this.#news?.();
    });
    look();
    void this.#follow(signal);
    void this.#watch(signal);
  }

  protected override state(): ProcessState {
    const { record, unreachable, ended } = this.#known;
    const texts = this.#texts.shown;
    return {
      ...this.#known,
      events: this.#events.slice(-this.options.limit),
      texts,
      text: texts.at(-1)?.text ?? "",
      state: ended?.status ?? (unreachable ? "unreachable" : (record?.state ?? "")),
      asks: record && !record.ended ? record.asks : [],
      viewers: record?.viewers ?? {},
    };
  }

  /** Read from where it stopped, and once that is over, whatever comes next: a next run, or the first. */
  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { limit, keep, ...from } = this.options;
      const { compact = true, announce = true, ...start } = from;
      const { cursor } = this.#known;
      try {
        const where = cursor ? { after: cursor } : start;
        for await (const item of this.#handle.tail({ ...where, compact, announce, signal })) {
          if (signal.aborted) return;
          this.#take(item);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#learn({ error: error as NatsprocError });
      }
      if (!signal.aborted) await this.#another(signal);
    }
  }

  #take(item: Item): void {
    if (item.kind === "event") {
      this.#events.push(item);
      if (this.#events.length > 2 * this.options.limit) this.#events = this.#events.slice(-this.options.limit);
      this.#texts.take(item);
      this.#learn({ cursor: item.cursor, ended: null, unreachable: false, error: null });
    } else if (item.type === "gap") this.#learn({ gaps: [...this.#known.gaps, item.data as Gap].slice(-this.options.limit) });
    else if (item.type === "caught_up") this.#learn({ caughtUp: true });
    else if (item.type === "unreachable") this.#learn({ unreachable: true });
    else if (item.type === "takeover") this.#learn({ unreachable: false });
    else this.#learn({ ended: item.data as Ended });
  }

  /** Resolves once there is a run to follow that was not followed to its end. */
  async #another(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { record, ended, error } = this.#known;
      const wanted = ended ? typeof this.options.run !== "number" && (record?.run ?? 0) > ended.run : error?.name === "NoSuchProcess";
      if (record && wanted) return;
      await new Promise<void>((resolve) => {
        this.#news = resolve;
      });
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { namespace, id } = this.#handle.address;
    try {
      this.#learn({ record: await this.#handle.record() });
      for await (const { record } of this.mesh.watch({ namespace, id, signal })) {
        this.#learn({ record: record ?? (await this.#handle.record()) });
      }
    } catch (error) {
      if (!signal.aborted) this.#learn({ error: error as NatsprocError });
    }
  }

  #learn(what: Partial<Known>): void {
    this.#known = { ...this.#known, ...what };
    this.#news?.();
    this.changed();
  }
}
