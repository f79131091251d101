/** A question of a process, to be answered here. */

import { useState } from "preact/hooks";

import { answer, deeds } from "./acting.ts";
import { fleet } from "./fleet.ts";
import type { EventRow } from "./fold.ts";
import { rights } from "./session.ts";
import { brief, visible } from "./words.ts";

/** Whether it is open, as far as the registry says; its code may have ended meanwhile. */
function isOpen(process: string, ask: string): boolean {
  const found = fleet.value.get(process);
  return !!found && !found.ended && found.asks.some((one) => one.ask === ask);
}

export function Question({ data, row, process }: { readonly data: Record<string, any>; readonly row: EventRow; readonly process: string }) {
  const ask = String(data.ask ?? "");
  const open = isOpen(process, ask);
  return (
    <div class={`question${open ? " open" : ""}`} data-offset={row.first}>
      <p class="ask">{typeof data.question === "string" ? visible(data.question) : brief(data.question, 1000)}</p>
      {open && <Answers process={process} ask={ask} choices={Array.isArray(data.choices) ? data.choices : []} keys />}
    </div>
  );
}

interface AnswersProps {
  readonly process: string;
  readonly ask: string;
  readonly choices: readonly unknown[];
  /** whether the digits choose here */
  readonly keys?: boolean;
}

/** Buttons for the choices, or a field. */
export function Answers({ process, ask, choices, keys = false }: AnswersProps) {
  const [text, setText] = useState("");
  const busy = deeds.value.some((deed) => deed.process === process && deed.verb === "answer" && deed.outcome === "sending");
  if (!rights.value?.may("control", process)) return <p class="soft small">It waits for somebody who may answer; this link may only watch.</p>;
  if (choices.length) {
    return (
      <div class="choices" role="group" aria-label="Answers">
        {choices.map((choice, index) => (
          <button type="button" key={index} class="button choice" disabled={busy} onClick={() => void answer(process, ask, choice)}>
            {keys && index < 9 && (
              <kbd class="wide-only" aria-hidden="true">
                {index + 1}
              </kbd>
            )}
            {brief(choice, 80)}
          </button>
        ))}
      </div>
    );
  }
  const give = async (): Promise<void> => {
    if (text && (await answer(process, ask, text))) setText("");
  };
  return (
    <div class="choices">
      <input
        class="input"
        aria-label="Your answer"
        placeholder="Your answer"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && !event.isComposing && void give()}
      />
      <button type="button" class="button primary" disabled={busy || !text} onClick={() => void give()}>
        Answer
      </button>
    </div>
  );
}
