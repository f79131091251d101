/** Anyone's handle on one process: watch it, leave it messages, command it. */

import type { Connection } from "./connection.js";
import { send } from "./control.js";
import { hold as keep } from "./holding.js";
import { AlreadyEnded, ProcessFailed, TimedOut } from "./errors.js";
import type { Exit } from "./errors.js";
import type { Command, Json, ProcessEvent, Receipt } from "./messages.js";
import { newToken } from "./names.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";
import type { ProcessRecord } from "./records.js";
import { store } from "./sending.js";
import type { SendOptions, Sent, WaitOptions } from "./sending.js";
import { first, Tail } from "./tail.js";
import type { TailOptions } from "./tail.js";

const COMMAND_SECONDS = 5;
const GRACE_SECONDS = 10;

export interface CommandOptions {
  /** for people */
  readonly reason?: string;
  /** seconds to wait for what comes of it */
  readonly timeout?: number;
  /** repeating an id changes nothing */
  readonly id?: string;
  /** valid for this epoch only */
  readonly epoch?: number;
  /** if nobody serves the process, keep it that many seconds for whoever does: `accepted`, with `data.held_until` */
  readonly hold?: number;
}

export interface InterruptOptions extends CommandOptions {
  /** what to do instead */
  readonly message?: Json;
  /** valid for this turn only: the offset of its `turn_began` */
  readonly turn?: number;
  /** reach code that never awaits, too */
  readonly hard?: boolean;
}

/** Made by `Mesh.process`. Commands throw: NoSuchProcess, Unreachable, NotAllowed, NoServer. */
export class ProcessHandle {
  constructor(
    private readonly connection: Connection,
    readonly address: Address,
  ) {}

  /** Watch it: its events from the first of its latest run, live, until that run ends. */
  tail(options: TailOptions = {}): Tail {
    return new Tail(this.connection, this.address, options);
  }

  /**
   * Up to n events before that offset, in order: a page, for scrolling back. Empty at the start of the log, and of what
   * retention took. Throws: as iterating a tail.
   */
  async before(offset: number, n = 100): Promise<ProcessEvent[]> {
    const page: ProcessEvent[] = [];
    const start = { kind: "above", offset: offset - n - 1, few: n } as const;
    for await (const item of new Tail(this.connection, this.address, { run: "all", follow: false }, start)) {
      if (item.kind !== "event") continue;
      if (item.offset < offset) page.push(item);
      if (item.offset >= offset - 1) break;
    }
    return page;
  }

  /** What the registry says of it, live or ended; null if it knows nothing. */
  record(): Promise<ProcessRecord | null> {
    return this.connection.insist(() => recordAt(this.connection, this.address));
  }

  /**
   * Leave a message in its inbox; returns once it is stored. Any JSON.
   * Throws: NoSuchProcess, AlreadyEnded, Refused (there is no gentler time), TooLarge, BadPayload, NotAllowed.
   */
  send(data: Json, options: SendOptions = {}): Promise<Sent> {
    return store(this.connection, this.address, data, options);
  }

  /** Leave a message and return what the process replies to it. Throws: TimedOut, AlreadyEnded, and as `send`. */
  async request(data: Json, { timeout, ...options }: SendOptions & WaitOptions = {}): Promise<Json> {
    return (await this.send(data, options)).reply(timeout === undefined ? {} : { timeout });
  }

  /** Send any command; the verbs below are this with names. */
  command(verb: string, { timeout = COMMAND_SECONDS, hold = 0, id = newToken(), ...fields }: CommandOptions & Omit<Partial<Command>, "verb"> = {}): Promise<Receipt> {
    const command = { id, verb, ...fields };
    return send(this.connection, this.address, command, timeout, hold > 0 && (() => keep(this.connection, this.address, command, hold)));
  }

  /** Stop what it is doing now, as Ctrl-C does, and optionally say what to do instead. */
  interrupt(options: InterruptOptions = {}): Promise<Receipt> {
    return this.command("interrupt", options);
  }

  /** Answer what it asks; `ask` may be left out if it asks one thing. The first answer wins. */
  answer(value: Json, { ask, ...options }: CommandOptions & { readonly ask?: string } = {}): Promise<Receipt> {
    return this.command("answer", { ...options, data: ask === undefined ? { value } : { ask, value } });
  }

  /** Hold it: an OS command at once, Python code at its next call that may wait. */
  pause(options: CommandOptions = {}): Promise<Receipt> {
    return this.command("pause", options);
  }

  /** Let it go on after a pause. */
  resume(options: CommandOptions = {}): Promise<Receipt> {
    return this.command("resume", options);
  }

  /** End it, with `grace` seconds to tidy up. */
  cancel({ grace = GRACE_SECONDS, ...options }: CommandOptions & { readonly grace?: number } = {}): Promise<Receipt> {
    return this.command("cancel", { timeout: grace + COMMAND_SECONDS, ...options, grace });
  }

  /** End it at once, without asking it. A run whose owner is gone is ended by a machine only: Unreachable, or held. */
  kill(options: CommandOptions = {}): Promise<Receipt> {
    return this.command("kill", { timeout: 15, ...options });
  }

  /** Record, epoch, offsets, node, load, and with `stack` where its Python code is. Throws: AlreadyEnded, TimedOut. */
  async inspect({ stack = false, ...options }: CommandOptions & { readonly stack?: boolean } = {}): Promise<Json> {
    const { status, why, data } = await this.command("inspect", { ...options, data: { stack } });
    if (status === "applied") return data;
    throw status === "accepted" ? new TimedOut(`${this.address} was not inspected: ${why}`) : new AlreadyEnded(why);
  }

  /**
   * How its latest run ended, once it has. A run whose owner is gone has not: it is waited for, until somebody ends it.
   * Throws: TimedOut after `timeout` seconds, NoSuchProcess.
   */
  async wait({ timeout }: WaitOptions = {}): Promise<Exit> {
    const end = await first(new Tail(this.connection, this.address, {}, { kind: "last", n: 1 }), timeout, ({ type }) => ["exited", "ended"].includes(type));
    if (!end) throw new TimedOut(`${this.address} still runs after ${timeout} s`);
    // where it is not an event, the log is gone, the terminal event included
    const { status = "failed", code = 1, run, signal = null, result = null, error = null } = { ...end, ...end.data };
    return { status, code, run, offset: end.kind === "event" ? end.offset : 0, signal, result, error };
  }

  /** What its latest run returned. Throws: ProcessFailed if it did not complete; and as `wait`. */
  async result(options: WaitOptions = {}): Promise<Json> {
    const end = await this.wait(options);
    if (end.status === "completed") return end.result;
    throw new ProcessFailed(`run ${end.run} of ${this.address} ended ${end.status}${end.error ? `: ${end.error}` : ""}`, end);
  }
}
