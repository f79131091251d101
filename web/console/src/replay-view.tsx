/** A run played again, with what a player has: play, speed, a scrubber. */

import { useEffect, useMemo, useRef } from "preact/hooks";
import type { ProcessHandle } from "natsproc";

import { LongList } from "./list.tsx";
import { Replay, SPEEDS } from "./replay.ts";
import { TimelineRow } from "./rows.tsx";
import { Shape } from "./shapes.tsx";
import { duration } from "./words.ts";

/** The player that is looked at, for the keyboard. */
export let player: Replay | null = null;

export function ReplayView({ handle, name }: { readonly handle: ProcessHandle; readonly name: string }) {
  const replay = useMemo(() => new Replay(handle), [handle]);
  const scroller = useRef<HTMLDivElement>(null);
  useEffect(() => {
    player = replay;
    return () => {
      player = null;
      replay.close();
    };
  }, [replay]);
  const { loading, trouble, cut } = replay;
  return (
    <>
      <div class="timed">
        <div class="scroller" ref={scroller} tabIndex={0} role="region" aria-label={`What ${name} said`} aria-busy={loading.value}>
          <LongList timeline={replay} scroller={scroller}>
            {(row, before) => <TimelineRow row={row} before={before} process={name} />}
          </LongList>
          {loading.value && <p class="empty">Reading its log…</p>}
          {trouble.value && <p class="empty tone-bad">{trouble.value}</p>}
        </div>
        {!replay.following.value && (
          <div class="jumps">
            <button type="button" class="pill" onClick={() => replay.follow(true)}>
              <Shape name="down" />
              Follow the end
            </button>
          </div>
        )}
      </div>
      {cut.value && <p class="tray soft">Of a log this long the first part is played.</p>}
      {!loading.value && <Controls replay={replay} />}
    </>
  );
}

function Controls({ replay }: { readonly replay: Replay }) {
  const { at, length, playing, speed } = replay;
  const moment = `${duration(at.value)} of ${duration(length.value)}`;
  return (
    <section class="player" aria-label="Replay">
      <button type="button" class="button primary" onClick={() => (playing.value ? replay.pause() : replay.play())}>
        <Shape name={playing.value ? "bars" : "play"} />
        <span>{playing.value ? "Hold" : "Play"}</span>
      </button>
      <input
        type="range"
        class="scrubber"
        min={0}
        max={Math.max(length.value, 0.001)}
        step="any"
        value={at.value}
        aria-label="Moment"
        aria-valuetext={moment}
        onInput={(event) => replay.seek(Number(event.currentTarget.value))}
      />
      <output class="moment">{moment}</output>
      <button type="button" class="button" title="Over a silence to the next event" onClick={() => replay.skip()}>
        Next
      </button>
      <label class="pick">
        <span class="hidden">Speed</span>
        <select value={speed.value} onChange={(event) => (speed.value = Number(event.currentTarget.value))}>
          {SPEEDS.map((one) => (
            <option key={one} value={one}>
              {one}×
            </option>
          ))}
        </select>
      </label>
    </section>
  );
}
