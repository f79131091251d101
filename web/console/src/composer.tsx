/** The box at the foot of a process: send it something, or stop what it does and say what to do instead. */

import { signal } from "@preact/signals";
import type { When } from "natsproc";
import { useLayoutEffect, useRef } from "preact/hooks";

import { interrupt, send } from "./acting.ts";
import type { Process } from "./fleet.ts";
import { rights } from "./session.ts";
import { Shape } from "./shapes.tsx";

export type Mode = "send" | "interrupt";

export const mode = signal<Mode>("send");
const asJson = signal(false);
const when = signal<When | "">("");
/** What is being written, by process: it survives looking elsewhere. */
const drafts = signal<ReadonlyMap<string, string>>(new Map());
const problem = signal("");

const WHEN: readonly (readonly [When, string])[] = [
  ["idle", "after this turn"],
  ["next", "at its next step"],
  ["now", "now, interrupting"],
];

/** Put the cursor into the box. */
export function compose(what: Mode): void {
  mode.value = what;
  document.querySelector<HTMLTextAreaElement>("#compose")?.focus(); // at once: the next key is meant for it
}

function draft(process: string, text: string): void {
  drafts.value = new Map(drafts.value).set(process, text);
  problem.value = "";
}

export function Composer({ process }: { readonly process: Process }) {
  const { key } = process;
  const box = useRef<HTMLTextAreaElement>(null);
  const text = drafts.value.get(key) ?? "";
  const maySend = !!rights.value?.may("send", key);
  const mayControl = !!rights.value?.may("control", key);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, 220)}px`;
  }, [text]);
  if (process.ended || (!maySend && !mayControl)) return null;
  const chosen: Mode = !maySend ? "interrupt" : !mayControl ? "send" : mode.value;
  const times = WHEN.filter(([value]) => !process.allow.length || process.allow.includes(value));

  const submit = async (): Promise<void> => {
    let data: unknown = text;
    if (asJson.value && text.trim()) {
      try {
        data = JSON.parse(text);
      } catch (error) {
        problem.value = `This is not JSON: ${(error as Error).message}`;
        return;
      }
    }
    if (chosen === "send" && !text) return;
    draft(key, "");
    const done = chosen === "send" ? await send(key, data, times.some(([value]) => value === when.value) ? (when.value as When) : undefined) : await interrupt(key, text ? data : undefined);
    if (!done && !(drafts.value.get(key) ?? "")) draft(key, text);
    box.current?.focus();
  };
  const keyed = (event: KeyboardEvent): void => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void submit();
  };

  return (
    <section class={`composer ${chosen}`} aria-label="Speak to it">
      <div class="tabs" role="group" aria-label="What to do">
        {maySend && <Choice value="send" chosen={chosen} text="Send" />}
        {mayControl && <Choice value="interrupt" chosen={chosen} text="Interrupt" />}
        <span class="grow" />
        {chosen === "send" && times.length > 1 && (
          <label class="pick">
            <span class="hidden">When it is to land</span>
            <select value={when.value} onChange={(event) => (when.value = event.currentTarget.value as When | "")}>
              <option value="">when it reads</option>
              {times.map(([value, text]) => (
                <option key={value} value={value}>
                  {text}
                </option>
              ))}
            </select>
          </label>
        )}
        <button type="button" class="toggle" aria-pressed={asJson.value} onClick={() => (asJson.value = !asJson.value)} title="Send it as JSON, not as text">
          JSON
        </button>
      </div>
      <div class="write">
        <textarea
          id="compose"
          ref={box}
          rows={1}
          aria-label={chosen === "send" ? "Message" : "What to do instead"}
          aria-describedby="compose-problem"
          placeholder={chosen === "send" ? (process.pty || process.kind === "" ? "Text for its input" : "Message") : "Stop what it does now, and say what to do instead (may be empty)"}
          value={text}
          spellcheck={!asJson.value}
          onInput={(event) => draft(key, event.currentTarget.value)}
          onKeyDown={keyed}
        />
        <button type="button" class={`button ${chosen === "send" ? "primary" : "stop"}`} disabled={chosen === "send" && !text} onClick={() => void submit()}>
          <Shape name={chosen === "send" ? "send" : "square"} />
          <span>{chosen === "send" ? "Send" : "Interrupt"}</span>
        </button>
      </div>
      <p id="compose-problem" class="problem" role="alert">
        {problem.value}
      </p>
    </section>
  );
}

function Choice({ value, chosen, text }: { readonly value: Mode; readonly chosen: Mode; readonly text: string }) {
  return (
    <button type="button" class="tab" aria-pressed={value === chosen} onClick={() => compose(value)}>
      {text}
    </button>
  );
}
