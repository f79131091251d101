/** A conversation, folded out of its log. Nothing else is kept, so a page that is loaded anew shows the same. */

import type { Item } from "./events.ts";

export interface Said {
  readonly key: string;
  readonly by: "user" | "agent" | "system";
  readonly pieces: readonly { readonly offset: number; readonly text: string }[];
}

export interface Chat {
  readonly said: readonly Said[];
  /** the turn that is under way: what Stop is to stop, or 0 */
  readonly turn: number;
  readonly asks: readonly { readonly ask: string; readonly question: string; readonly choices?: readonly string[] }[];
  /** where the agent runs */
  readonly replica: string;
  readonly trouble: string;
}

export const nothing: Chat = { said: [], turn: 0, asks: [], replica: "", trouble: "" };

export function fold(chat: Chat, { type, data, offset = 0, epoch = 0 }: Item): Chat {
  switch (type) {
    case "started":
    case "recovered": {
      const replica: string = data.labels?.replica ?? data.node;
      const next = { ...chat, replica, turn: 0, trouble: "" };
      return type === "recovered" ? add(next, `took-over-${offset}`, "system", `replica ${replica} took over`, offset) : next;
    }
    case "received":
      return data.refused ? chat : add(chat, data.message, "user", words(data.data), offset);
    case "interrupted": // by `natsproc interrupt -m`, say; what came as a message is received as one
      return data.message == null ? chat : add(chat, data.command, "user", words(data.message), offset);
    case "turn_began":
      return { ...chat, turn: offset };
    case "turn_ended":
      if (data.status === "completed") return { ...chat, turn: 0 };
      return add({ ...chat, turn: 0 }, `end-${offset}`, "system", data.error ?? data.status, offset);
    case "token":
    case "text": {
      if (data.stream.startsWith("thinking")) return chat;
      const key = `${epoch}-${data.stream}`; // a new owner begins its streams anew
      return add(chat, key, "agent", data.text, data.first ?? offset, data.last ?? offset);
    }
    case "tool_call":
      return add(chat, data.id, "system", `${data.name} ${JSON.stringify(data.arguments)}`, offset);
    case "asked":
      return { ...chat, asks: [...chat.asks.filter(({ ask }) => ask !== data.ask), data] };
    case "answered":
      return { ...chat, asks: chat.asks.filter(({ ask }) => ask !== data.ask) };
    case "unreachable":
      return { ...chat, trouble: "its replica is gone; another one will take over" };
    case "ended":
      return { ...chat, turn: 0, trouble: `it has ended: ${data.status}` };
    default:
      return chat;
  }
}

const words = (said: any): string => (typeof said === "string" ? said : (said?.text ?? JSON.stringify(said)));

/** Adds a piece. One that covers offsets stands for whatever came of them before; no other is taken twice. */
function add(chat: Chat, key: string, by: Said["by"], text: string, first: number, last = first): Chat {
  const at = chat.said.findIndex((each) => each.key === key);
  const old = chat.said[at];
  if (!old) return { ...chat, said: [...chat.said, { key, by, pieces: [{ offset: first, text }] }] };
  if (by !== "agent") return chat; // a message comes again to who takes over
  const before = old.pieces.filter((piece) => piece.offset < first || piece.offset > last);
  return { ...chat, said: chat.said.with(at, { ...old, pieces: [...before, { offset: first, text }] }) };
}
