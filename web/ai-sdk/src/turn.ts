/** One answer, from the log to what `useChat` takes: no connection, no clock, only events in their order. */

import type { UIMessageChunk } from "ai";
import type { Item, Json, ProcessEvent } from "natsproc";

export type Chunk = UIMessageChunk;

/** The data of a `data-question` part: something that the process asks. */
export interface Question {
  readonly ask: string;
  readonly question: string;
  readonly choices?: readonly Json[];
  /** it waits for an answer */
  readonly open: boolean;
  /** what was answered, and by whom */
  readonly answer?: Json;
  readonly by?: string;
}

/** The metadata of an answer. */
export interface TurnMetadata {
  readonly natsproc: {
    /** the offset of its `turn_began` */
    readonly turn: number;
    /** who stopped it, and why */
    readonly stopped?: { readonly by: string; readonly reason: string };
  };
}

export interface TurnOptions {
  /** other chunks for an event of a turn; undefined: what is usual */
  readonly chunks?: ((event: ProcessEvent) => readonly Chunk[] | undefined) | undefined;
  /** whether another stream will go on behind that message, which landed in this turn */
  readonly handsOverTo?: (message: string) => boolean;
}

const REASONING = /^(reasoning|thinking)/;

/** What answers one message, or a turn that answers none. */
export class Turn {
  /** the offset of its `turn_began`; 0 before, and where it is not known */
  number = 0;
  /** nothing comes any more */
  over = false;
  #began = false;
  #taken = false; // the message was received
  #lands = false; // the message came into a turn that had begun
  #cause: string | null;
  #said = false; // there was a start
  #wrote = false; // and something to be shown
  #reply: Json = undefined;
  #stopped: { by: string; reason: string } | null = null;
  readonly #texts = new Map<string, "text" | "reasoning">(); // those that are open
  readonly #tools = new Set<string>();
  readonly #questions = new Map<string, Question>();

  constructor(
    /** the message that it answers, or null */
    readonly message: string | null,
    private readonly options: TurnOptions = {},
  ) {
    this.#cause = message;
  }

  /** What an item of a tail is to a chat. */
  take(item: Item): Chunk[] {
    if (this.over) return [];
    if (item.kind === "notice") return this.#heed(item.type, item.data);
    const { type, data } = item;
    if (type === "received") return this.#receive(item);
    if (type === "turn_began") return this.#begin(item);
    if (type === "replied" && data.message === this.message) return this.#replied(item);
    if (type === "recovered" || type === "restarted") return this.#recover(type, data);
    if (type === "exited") return this.#fail(`the process has ended (${data.status})`);
    if (this.#lands && !this.#began && item.cause && item.cause !== this.message) this.#adopt(item.cause);
    if (!this.#began) return [];
    if (type === "turn_ended") return this.#isMine(item) ? this.#end(data) : [];
    if (type === "interrupted") this.#stopped = { by: data.user ?? data.sender, reason: data.reason ?? "" };
    if (type === "answered") return this.#answered(data);
    const chunks = item.cause === this.#cause ? (this.options.chunks?.(item) ?? this.#usual(item)) : [];
    return this.#first(chunks);
  }

  #isMine({ cause, data }: ProcessEvent): boolean {
    return this.number ? data.turn === this.number : cause === this.#cause;
  }

  #heed(type: string, data: Json): Chunk[] {
    if (type === "ended") return this.#fail(`the process has ended (${data.status})`);
    return type === "gap" && this.#began ? [{ type: "data-gap", data, transient: false }] : [];
  }

  #receive({ data, offset }: ProcessEvent): Chunk[] {
    if (data.message === this.message) {
      if (data.refused) return this.#fail(`the message was not taken: ${data.refused}`);
      this.#taken = true;
      this.#lands = data.when === "next";
      return [];
    }
    if (!this.#began || data.when !== "next") return [];
    if (this.options.handsOverTo?.(data.message)) return this.#finish("stop");
    return [{ type: "steering-message", id: data.message ?? String(offset), parts: [{ type: "text", text: textOf(data.data) }] }];
  }

  /** The turn that answers it; or, if it was taken, the next one that says of none. */
  #begin({ offset, cause }: ProcessEvent): Chunk[] {
    if (this.#taken && !this.#began && cause === null) this.#cause = null;
    if (cause !== this.#cause || this.number) return [];
    this.number = offset;
    if (this.#began) return [];
    this.#began = true;
    return this.#start();
  }

  /** The message landed in a turn that answers another one: what follows is of that turn. */
  #adopt(cause: string): void {
    this.#cause = cause;
    this.#began = true;
  }

  #start(): Chunk[] {
    const metadata: TurnMetadata = { natsproc: { turn: this.number } };
    this.#said = true;
    return [{ type: "start", messageId: idOf(this.message, this.number), messageMetadata: metadata }, { type: "start-step" }];
  }

  /** Chunks, behind a start where there was none. */
  #first(chunks: readonly Chunk[]): Chunk[] {
    if (!chunks.length) return [];
    this.#wrote = true;
    return this.#said ? [...chunks] : [...this.#start(), ...chunks];
  }

  #usual({ type, data, offset }: ProcessEvent): Chunk[] {
    if (type === "token" && typeof data?.stream === "string") return this.#token(data.stream, String(data.text));
    if (type === "text" && typeof data?.stream === "string") return this.#text(data.stream, String(data.text));
    if (type === "message") return whole(String(offset), textOf(data));
    if (type === "asked") return this.#ask({ ask: data.ask, question: data.question, ...(data.choices && { choices: data.choices }), open: true });
    if (type === "tool_call" && data?.id) {
      this.#tools.add(data.id);
      return [{ type: "tool-input-available", toolCallId: data.id, toolName: data.name, input: data.arguments, providerExecuted: true, dynamic: true }];
    }
    if (type !== "tool_result" || !this.#tools.has(data?.id)) return [];
    const call = { toolCallId: data.id, providerExecuted: true, dynamic: true };
    if ((data.status ?? "success") === "success") return [{ type: "tool-output-available", ...call, output: data.result }];
    return [{ type: "tool-output-error", ...call, errorText: textOf(data.result) }];
  }

  #token(stream: string, delta: string): Chunk[] {
    const kind = this.#texts.get(stream) ?? (REASONING.test(stream) ? "reasoning" : "text");
    const more: Chunk = { type: `${kind}-delta`, id: stream, delta };
    if (this.#texts.has(stream)) return [more];
    this.#texts.set(stream, kind);
    return [{ type: `${kind}-start`, id: stream }, more];
  }

  /** The closing event: of a text whose pieces were not read it has all of it. */
  #text(stream: string, text: string): Chunk[] {
    const pieces = this.#texts.has(stream) ? [] : this.#token(stream, text);
    return [...pieces, ...this.#close(stream)];
  }

  #close(stream: string): Chunk[] {
    const kind = this.#texts.get(stream) ?? "text";
    this.#texts.delete(stream);
    return [{ type: `${kind}-end`, id: stream }];
  }

  #ask(question: Question): Chunk[] {
    this.#questions.set(question.ask, question);
    return [{ type: "data-question", id: question.ask, data: question }];
  }

  #answered({ ask, value, sender, user }: Json): Chunk[] {
    const asked = this.#questions.get(ask);
    if (!asked) return [];
    return this.#ask({ ...asked, open: false, ...(sender && { answer: value, by: user ?? sender }) });
  }

  /** A reply is the answer of a process that takes no turns, and of a turn that said nothing else. */
  #replied({ data }: ProcessEvent): Chunk[] {
    this.#reply = data.data;
    if (this.#began) return [];
    return [...this.#start(), ...this.#finish("stop")];
  }

  /** The owner is another one. It begins anew with what was not saved, if it saves anything. */
  #recover(type: string, { checkpoint }: Json): Chunk[] {
    if (!this.#taken && !this.#began) return []; // it is in the inbox, for whoever comes
    if (type === "restarted" || checkpoint === undefined) return this.#fail("the process was lost, and this answer with it");
    const again: Chunk[] = this.#began ? [{ type: "reset-step" }] : [];
    this.#texts.clear();
    this.#tools.clear();
    this.number = 0;
    return again;
  }

  #end({ status, error }: Json): Chunk[] {
    if (status === "failed") return this.#fail(error ?? "the turn failed");
    if (status === "completed") return this.#finish("stop");
    const { by, reason } = this.#stopped ?? { by: "", reason: "" };
    const natsproc = { turn: this.number, stopped: { by, reason } };
    return this.#finish("interrupted", { natsproc }, [{ type: "abort", reason: reason || `it was ${status}` }]);
  }

  #finish(finishReason: "stop" | "interrupted", messageMetadata?: TurnMetadata, said: Chunk[] = []): Chunk[] {
    const reply = this.#reply === undefined || this.#wrote ? [] : whole("reply", textOf(this.#reply));
    const open = [...this.#texts.keys()].flatMap((stream) => this.#close(stream));
    this.over = true;
    if (!this.#said) return [];
    return [...open, ...reply, { type: "finish-step" }, ...said, { type: "finish", finishReason, ...(messageMetadata && { messageMetadata }) }];
  }

  #fail(errorText: string): Chunk[] {
    const open = [...this.#texts.keys()].flatMap((stream) => this.#close(stream));
    this.over = true;
    return [...open, { type: "error", errorText }];
  }
}

/** The id of the message that answers that one, the same in every page and after every reload. */
function idOf(message: string | null, turn: number): string {
  return `answer-${message ?? turn}`;
}

function whole(id: string, text: string): Chunk[] {
  return [{ type: "text-start", id }, { type: "text-delta", id, delta: text }, { type: "text-end", id }];
}

/** What a message says: text, or the `text` of an object. */
export function textOf(data: Json): string {
  const said = data?.text ?? data;
  return typeof said === "string" ? said : JSON.stringify(said);
}
