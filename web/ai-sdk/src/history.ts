/** A conversation as it is in the log, for the `messages` that a chat begins with. */

import { readUIMessageStream } from "ai";
import type { UIMessage } from "ai";
import type { Item, ProcessEvent } from "natsproc";

import type { ChatProcess } from "./transport.js";
import { textOf, Turn } from "./turn.js";
import type { Chunk, TurnOptions } from "./turn.js";

export interface LoadOptions extends Pick<TurnOptions, "chunks"> {
  /** read the last n events only; the latest run unless said */
  readonly n?: number;
}

/** One answer of the log, while it is read. */
interface Answer {
  readonly turn: Turn;
  readonly chunks: Chunk[];
}

/** What users and the process have said to each other, in the order in which it was said; an answer under way as far as it is. Throws: as a tail does, but []
 *  where there is no such process yet. */
export async function loadMessages<M extends UIMessage = UIMessage>(process: ChatProcess, { n, chunks }: LoadOptions = {}): Promise<M[]> {
  const said: (Answer | UIMessage)[] = [];
  const open = new Map<string | null, Answer>();
  try {
    for await (const item of process.tail({ ...(n !== undefined && { n }), follow: false, compact: true })) take(item, said, open, chunks);
  } catch (error) {
    if ((error as Error).name !== "NoSuchProcess") throw error;
  }
  const messages = await Promise.all(said.map(async (each) => ("turn" in each ? await messageOf(each) : each)));
  return messages.filter((message) => message !== null) as M[];
}

function take(item: Item, said: (Answer | UIMessage)[], open: Map<string | null, Answer>, chunks: TurnOptions["chunks"]): void {
  if (item.kind === "event" && item.type === "received") receive(item, said, open);
  if (item.kind === "event" && begins(item, said) && !open.has(item.cause)) {
    const answer = { turn: new Turn(item.cause, { chunks }), chunks: [] };
    open.set(item.cause, answer);
    said.push(answer);
  }
  for (const { turn, chunks: found } of open.values()) found.push(...turn.take(item));
  for (const [cause, { turn }] of open) if (turn.over) open.delete(cause);
}

/** An answer begins with its turn, or is the reply of a process that takes none. */
function begins({ type, cause }: ProcessEvent, said: readonly (Answer | UIMessage)[]): boolean {
  return type === "turn_began" || (type === "replied" && !said.some((each) => "turn" in each && each.turn.message === cause));
}

/** What a user says. What lands in a turn is a part of its answer. */
function receive({ data }: ProcessEvent, said: (Answer | UIMessage)[], open: ReadonlyMap<string | null, Answer>): void {
  const known = said.some((each) => "id" in each && each.id === data.message); // by a former owner, whose state was lost
  if (data.refused || known || (data.when === "next" && open.size)) return;
  said.push({ id: data.message, role: "user", metadata: { natsproc: { sender: data.user ?? data.sender } }, parts: [{ type: "text", text: textOf(data.data) }] });
}

async function messageOf({ chunks }: Answer): Promise<UIMessage | null> {
  const stream = new ReadableStream<Chunk>({
    start(controller) {
      for (const chunk of chunks) if (chunk.type !== "error") controller.enqueue(chunk);
      controller.close();
    },
  });
  let message: UIMessage | null = null;
  for await (const state of readUIMessageStream({ stream })) message = state;
  return message;
}
