/** What events and notices say, in a line for people. */

import type { Json, Notice, ProcessEvent } from "natsproc";

import { brief } from "../../console/src/words.ts";

export type Tone = "" | "mild" | "good" | "bad" | "warn" | "accent";

/** An event's words, and how they are meant. */
export function describe({ type, data, offset }: ProcessEvent): [text: string, tone: Tone] {
  const said: Record<string, Json> = typeof data === "object" && data !== null ? data : {};
  const by = `by ${brief(said.sender ?? "someone")}${said.reason ? `: ${brief(said.reason)}` : ""}`;
  switch (type) {
    case "started":
    case "restarted":
    case "recovered":
      return [`${brief(said.kind ?? "process")} on ${brief(said.host ?? said.node ?? "?")}${said.title ? `: ${brief(said.title)}` : ""}`, "mild"];
    case "exited":
      return [ended(said), said.status === "completed" ? "good" : "bad"];
    case "interrupted":
    case "cancelled":
    case "killed":
    case "paused":
    case "resumed":
      return [`${by}${said.message == null ? "" : ` → ${brief(said.message)}`}`, "warn"];
    case "refused":
      return [`${brief(said.verb ?? "a command")} ${by}: ${brief(said.why)}`, "warn"];
    case "received":
      return [`from ${brief(said.sender)}: ${brief(said.refused ? `refused: ${said.refused}` : said.data)}`, "mild"];
    case "replied":
      return [`to ${brief(said.sender)}: ${brief(said.data)}`, "mild"];
    case "asked":
      return [`${brief(said.question)}${Array.isArray(said.choices) ? ` [${said.choices.map((each) => brief(each)).join("/")}]` : ""}`, "accent"];
    case "answered":
      return [said.sender ? `by ${brief(said.sender)}: ${brief(said.value)}` : `by nobody: ${brief(said.why)}`, "accent"];
    case "turn_began":
      return [`turn ${offset}${said.sender ? ` for ${brief(said.sender)}` : ""}`, "mild"];
    case "turn_ended":
      return [`turn ${brief(said.turn)} ${brief(said.status)}`, "mild"];
    case "dropped":
      return [`${brief(said.count)} events found no room`, "warn"];
    case "failed":
      return [brief(said.why), "bad"];
    case "log":
      return [`${brief(said.text, 4000)}${fields(said, ["level", "text"])}`, { warning: "warn", warn: "warn", error: "bad", critical: "bad", debug: "mild" }[String(said.level)] as Tone ?? ""];
    case "metric":
      return [fields(said, []).trim(), ""];
    default:
      return [brief(data, 1000), ""];
  }
}

/** What a notice says; empty for one that a reader need not hear. */
export function noticed({ type, data }: Notice, process: string): [text: string, tone: Tone] {
  switch (type) {
    case "gap":
      return [`events ${brief(data.from)} to ${brief(data.to)} are gone: the server kept only what came later`, "warn"];
    case "takeover":
      return [`a new owner has taken over (epoch ${brief(data.epoch)})`, "warn"];
    case "unreachable":
      return [`the node of ${process} does not answer; it may come back`, "bad"];
    default:
      return ["", ""];
  }
}

/** How a run ended. */
export function ended(said: Record<string, Json>): string {
  const code = said.code ? `, exit code ${brief(said.code)}` : "";
  return `${brief(said.status ?? "ended")}${code}${said.error ? `: ${brief(said.error)}` : ""}${said.result == null ? "" : ` → ${brief(said.result)}`}`;
}

function fields(said: Record<string, Json>, without: readonly string[]): string {
  return Object.entries(said)
    .filter(([name]) => !without.includes(name))
    .map(([name, value]) => `  ${brief(name)}=${brief(value)}`)
    .join("");
}
