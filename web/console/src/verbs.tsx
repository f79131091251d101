/** The control verbs of a process, and what came of those that its log does not show. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { cancel, deeds, dismiss, kill, pause, resume, words } from "./acting.ts";
import type { Deed } from "./acting.ts";
import { compose } from "./composer.tsx";
import { now } from "./fleet.ts";
import type { Process } from "./fleet.ts";
import { phase, rights } from "./session.ts";
import { Shape } from "./shapes.tsx";
import type { Timeline } from "./timeline.ts";

const STAYS = 6000; // milliseconds for which what went well is shown

/** What has to be confirmed: ending somebody's run. */
export const confirming = signal<"cancel" | "kill" | null>(null);

export function Verbs({ process }: { readonly process: Process }) {
  const { key, state } = process;
  if (process.ended || phase.value === "over" || !rights.value?.may("control", key)) return null;
  const lost = state === "unreachable";
  return (
    <div class="verbs" role="group" aria-label="Control">
      {state === "paused" ? (
        <button type="button" class="button" onClick={() => void resume(key)}>
          <Shape name="play" />
          <span>Resume</span>
        </button>
      ) : (
        <button type="button" class="button" disabled={lost} onClick={() => void pause(key)}>
          <Shape name="bars" />
          <span>Pause</span>
        </button>
      )}
      <button type="button" class="button" disabled={lost} onClick={() => compose("interrupt")}>
        <Shape name="hand" />
        <span>Interrupt</span>
      </button>
      <button type="button" class="button" onClick={() => (confirming.value = "cancel")}>
        <Shape name="slash" />
        <span>Cancel</span>
      </button>
      <button type="button" class="button" onClick={() => (confirming.value = "kill")}>
        <Shape name="cross" />
        <span>Kill</span>
      </button>
      <Confirm process={process} />
    </div>
  );
}

function Confirm({ process }: { readonly process: Process }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const verb = confirming.value;
  useEffect(() => {
    if (verb && !dialog.current?.open) dialog.current?.showModal();
    if (!verb) dialog.current?.close();
  }, [verb]);
  const close = (): void => void (confirming.value = null);
  const act = (): void => {
    void (verb === "cancel" ? cancel : kill)(process.key);
    close();
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="confirm-title" onClose={close}>
      <h2 id="confirm-title">{verb === "kill" ? "Kill" : "Cancel"} {process.id}?</h2>
      <p>{verb === "kill" ? "Its run ends at once; it is not asked, and saves nothing." : "Its run ends. It has ten seconds to tidy up."}</p>
      <div class="choices">
        <button type="button" class="button stop" onClick={act}>
          {verb === "kill" ? "Kill it" : "Cancel its run"}
        </button>
        <button type="button" class="button" onClick={close}>
          Leave it running
        </button>
      </div>
    </dialog>
  );
}

/** Commands and messages of ours that are under way, or that the log will not show. */
export function Tray({ process, timeline }: { readonly process: string; readonly timeline: Timeline }) {
  void timeline.rows.value; // what is in the log is shown there
  const mine = deeds.value.filter((deed) => deed.process === process && isShown(deed, timeline));
  if (!mine.length) return null;
  return (
    <ul class="tray" aria-label="Receipts">
      {mine.map((deed) => (
        <li key={deed.id} class={`deed ${deed.outcome}`}>
          <Shape name={{ sending: "send", stored: "check", applied: "check", accepted: "ring" }[deed.outcome as string] ?? "cross"} size={14} />
          <span>
            <b>{deed.verb}</b> {words(deed.outcome)}
            {deed.outcome === "stored" && ", waiting to be taken"}
            {deed.why && <span class="soft">: {deed.why}</span>}
          </span>
          <button type="button" class="icon" aria-label="Dismiss" onClick={() => dismiss(deed.id)}>
            <Shape name="cross" size={12} />
          </button>
        </li>
      ))}
    </ul>
  );
}

function isShown(deed: Deed, timeline: Timeline): boolean {
  if (deed.outcome !== "sending" && timeline.causes.has(deed.id)) return false;
  const age = now.value - deed.begun - deed.took;
  if (deed.outcome === "applied") return age < STAYS;
  return deed.outcome !== "sending" || now.value - deed.begun > 300;
}
