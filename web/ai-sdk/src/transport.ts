/** What `useChat` speaks through: messages go into the process's inbox, answers come out of its log. */

import type { ChatRequestOptions, ChatTransport, UIMessage } from "ai";
import type { Item, Json, ProcessEvent, ProcessHandle, Receipt, TailOptions, When } from "natsproc";

import { runningTurn } from "./running.js";
import { Turn } from "./turn.js";
import type { Chunk, TurnOptions } from "./turn.js";

/** What is needed of a `Tail`. */
export interface ChatTail extends AsyncIterable<Item> {
  next(): Promise<IteratorResult<Item, undefined>>;
  return(): Promise<unknown>;
}

/** What is needed of a `ProcessHandle`. */
export interface ChatProcess extends Pick<ProcessHandle, "interrupt" | "answer"> {
  tail(options: TailOptions): ChatTail;
  send(data: Json, options: { readonly id?: string; readonly when?: When }): Promise<{ readonly duplicate: boolean }>;
}

/** What is sent, as `useChat` says it. */
export interface Sending<M extends UIMessage> extends ChatRequestOptions {
  readonly chatId: string;
  readonly trigger: "submit-message" | "regenerate-message";
  /** the user's */
  readonly message: M;
  readonly messages: readonly M[];
}

export interface ProcessChatTransportOptions<M extends UIMessage> extends Pick<TurnOptions, "chunks"> {
  /** who answers: `mesh.process(id)` or `processAt(url)`, or a function that knows for each chat */
  readonly process: ChatProcess | ((chatId: string) => ChatProcess | Promise<ChatProcess>);
  /** what is left in its inbox; unless said the text, or with files `{text, files}`, and `regenerate` where that is wanted */
  readonly data?: (sending: Sending<M>) => Json;
  /** when a message is to land while the process is in a turn */
  readonly when?: When;
  /**
   * What `stop` does, and so what leaving a page does that has no chat of its own (see README.md): `interrupt` (unless
   * said) ends the turn; `leave` only does not follow it any more
   */
  readonly onAbort?: "interrupt" | "leave";
  /** what came of a stop: a receipt, or why there is none; a warning in the console unless said */
  readonly onStopped?: (result: Receipt | Error) => void;
}

const ID = /^[\w-]{1,64}$/;
const BATCH = 256; // items of the past between two looks at the page

/** A chat with a process. Commands and messages are those of the mesh's own sender. */
export class ProcessChatTransport<M extends UIMessage = UIMessage> implements ChatTransport<M> {
  /** an answer is read from its beginning, so no token is there twice and none is missing */
  readonly resumeStreamIsReplay = true;
  readonly #inFlight = new Set<string>(); // messages of ours whose answer is not over
  readonly #resumed = new Map<string, number>();

  constructor(private readonly options: ProcessChatTransportOptions<M>) {}

  async sendMessages({ chatId, messageId, messages, abortSignal, ...asked }: Parameters<ChatTransport<M>["sendMessages"]>[0]): Promise<ReadableStream<Chunk>> {
    const message = messages.at(-1);
    if (message?.role !== "user") throw new Error("only what a user says can be sent: the process calls its tools itself");
    const process = await this.#process(chatId);
    const { data = usual, when } = this.options;
    // sent once more it is stored once; but what was edited, or is asked again, is another message
    const id = messageId === undefined && asked.trigger === "submit-message" && ID.test(message.id) ? message.id : crypto.randomUUID();
    const turn = this.#turn(id);
    let tail = process.tail({ n: 0 });
    this.#inFlight.add(id);
    try {
      await caughtUp(tail);
      const sent = await process.send(data({ ...asked, chatId, message, messages }), { id, ...(when && { when }) });
      if (sent.duplicate) {
        void tail.return();
        tail = process.tail({});
      }
    } catch (error) {
      this.#inFlight.delete(id);
      void tail.return();
      throw error;
    }
    return this.#stream(process, turn, tail, [], abortSignal, () => true);
  }

  async reconnectToStream({ chatId, abortSignal }: Parameters<ChatTransport<M>["reconnectToStream"]>[0]): Promise<ReadableStream<Chunk> | null> {
    const mine = (this.#resumed.get(chatId) ?? 0) + 1;
    this.#resumed.set(chatId, mine);
    const process = await this.#process(chatId);
    const began = await runningTurn(process).catch(ifNoProcess);
    if (!began || abortSignal?.aborted) return null;
    const turn = this.#turn(began.cause);
    const first = turn.take(began);
    // who resumes once more leaves the stream before, which is not a stop
    return this.#stream(process, turn, process.tail({ after: began.cursor }), first, abortSignal, () => this.#resumed.get(chatId) === mine);
  }

  #turn(message: string | null): Turn {
    const { chunks } = this.options;
    return new Turn(message, { chunks, handsOverTo: (other) => other !== message && this.#inFlight.has(other) });
  }

  async #process(chatId: string): Promise<ChatProcess> {
    const { process } = this.options;
    return typeof process === "function" ? process(chatId) : process;
  }

  #stream(process: ChatProcess, turn: Turn, tail: ChatTail, first: Chunk[], signal: AbortSignal | undefined, stops: () => boolean): ReadableStream<Chunk> {
    const end = (): void => {
      this.#inFlight.delete(turn.message ?? "");
      signal?.removeEventListener("abort", abort);
      void tail.return();
    };
    const abort = (): void => void setTimeout(() => (stops() ? this.#stop(process, turn, tail).finally(end) : end()));
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort);
    let live = !first.length;
    return new ReadableStream<Chunk>(
      {
        start: (controller) => first.forEach((chunk) => controller.enqueue(chunk)),
        pull: async (controller) => {
          const chunks: Chunk[] = [];
          let done: boolean | undefined = false;
          try {
            for (let items = 0; !done && !turn.over && !signal?.aborted && !(chunks.length && (live || items >= BATCH)); items++) {
              const next = await tail.next();
              done = next.done;
              if (!next.value) continue;
              live ||= next.value.type === "caught_up";
              chunks.push(...turn.take(next.value));
            }
          } catch (error) {
            end();
            throw error;
          }
          if (signal?.aborted) return;
          for (const chunk of merged(chunks)) controller.enqueue(chunk);
          if (!done && !turn.over) return;
          controller.close();
          end();
        },
        cancel: () => {
          if (!signal?.aborted) end();
        },
      },
      { highWaterMark: 1 },
    );
  }

  /** End the turn, and no other one; one that has not begun yet, once it does. */
  async #stop(process: ChatProcess, turn: Turn, tail: ChatTail): Promise<void> {
    if (this.options.onAbort === "leave") return;
    const { onStopped = warn } = this.options;
    try {
      if (!turn.number) await this.#stopWhatItWaitsFor(process, onStopped);
      while (!turn.number && !turn.over) {
        const { done, value } = await tail.next();
        if (done) return;
        turn.take(value);
      }
      if (!turn.over) onStopped(await process.interrupt({ turn: turn.number, reason: "Stop was pressed" }));
    } catch (error) {
      onStopped(error as Error);
    }
  }

  /** The turn that is under way, if this page asked for it or the message landed in it. */
  async #stopWhatItWaitsFor(process: ChatProcess, onStopped: (result: Receipt | Error) => void): Promise<void> {
    const running = await runningTurn(process);
    if (running && this.#inFlight.has(running.cause)) onStopped(await process.interrupt({ turn: running.offset, reason: "Stop was pressed" }));
  }
}

function warn(result: Receipt | Error): void {
  if (result instanceof Error) console.warn(`Stop did not reach the process: ${result.message}`);
  else if (result.status === "refused") console.warn(`the process refused to stop: ${result.why}`);
}

function usual<M extends UIMessage>({ message, trigger }: Sending<M>): Json {
  const text = message.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  const files = message.parts.flatMap((part) => (part.type === "file" ? [{ url: part.url, mediaType: part.mediaType, filename: part.filename }] : []));
  const again = trigger === "regenerate-message";
  return files.length || again ? { text, ...(files.length && { files }), ...(again && { regenerate: true }) } : text;
}

/** Read to the end of what is stored, which is nothing where a tail begins there. Throws: as a tail does. */
async function caughtUp(tail: ChatTail): Promise<void> {
  for (;;) {
    const { done, value } = await tail.next();
    if (done || value.type === "caught_up") return;
  }
}

function ifNoProcess(error: Error): ProcessEvent | null {
  if (error.name === "NoSuchProcess") return null;
  throw error;
}

/** Pieces of a text that come one behind the other are one. */
function merged(chunks: readonly Chunk[]): Chunk[] {
  const found: Chunk[] = [];
  for (const chunk of chunks) {
    const last = found.at(-1);
    if (chunk.type === "text-delta" && last?.type === "text-delta" && last.id === chunk.id) found[found.length - 1] = { ...last, delta: last.delta + chunk.delta };
    else found.push(chunk);
  }
  return found;
}

