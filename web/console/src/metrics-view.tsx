/** Metrics as live charts: one small chart for each name, all on the same time. */

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { ProcessHandle } from "natsproc";
import type uPlot from "uplot";

import { Metrics } from "./reel.ts";
import type { Series } from "./reel.ts";
import { sentence } from "./session.ts";
import { theme } from "./theme.ts";
import { clock, number, visible } from "./words.ts";

const EVENTS = 20_000; // the last so many are looked through
const REDRAW = 500; // milliseconds
const HEIGHT = 132;

class Reading {
  readonly series = signal<readonly Series[]>([]);
  readonly known = signal(false);
  readonly trouble = signal("");
  #metrics = new Metrics();
  #stop = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(handle: ProcessHandle) {
    void this.#read(handle);
  }

  close(): void {
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  async #read(handle: ProcessHandle): Promise<void> {
    try {
      let taken = 0;
      for await (const item of handle.tail({ n: EVENTS, announce: false, signal: this.#stop.signal })) {
        if (item.type === "caught_up") this.known.value = true;
        if (item.kind === "event" && item.type === "metric") {
          this.#metrics.add(item.time, item.data, item.run);
          this.#timer ??= setTimeout(() => this.#draw(), this.known.value ? REDRAW : 50);
        }
        if (++taken % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) this.trouble.value = sentence(error);
    }
    this.known.value = true;
  }

  #draw(): void {
    this.#timer = undefined;
    this.series.value = this.#metrics.all;
  }
}

export default function MetricsView({ handle, name }: { readonly handle: ProcessHandle; readonly name: string }) {
  const reading = useMemo(() => new Reading(handle), [handle]);
  useEffect(() => () => reading.close(), [reading]);
  const series = reading.series.value;
  return (
    <div class="charts" role="region" tabIndex={0} aria-label={`Metrics of ${name}`}>
      {series.map((one) => (
        <Chart key={one.name} series={one} />
      ))}
      {!series.length && <p class="empty">{reading.trouble.value || (reading.known.value ? "It has reported no metrics lately." : "Reading…")}</p>}
    </div>
  );
}

function Chart({ series }: { readonly series: Series }) {
  const { name, times, values } = series;
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const look = theme.value;
  useEffect(() => {
    let gone = false;
    const element = holder.current!;
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    void load().then((Plot) => {
      if (gone) return;
      plot.current = new Plot(optionsOf(name, element), [times as number[], values as (number | null)[]], element);
      sizes.observe(element);
    });
    return () => {
      gone = true;
      sizes.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [name, look]);
  useEffect(() => plot.current?.setData([times as number[], values as (number | null)[]]), [times.length, values]);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const now = number(values.at(-1) ?? 0);
  return (
    <figure class="chart" role="img" aria-label={`${name}: ${now} now, between ${number(low)} and ${number(high)}`}>
      <figcaption>
        <span class="name">{visible(name)}</span>
        <span class="now">{now}</span>
        <span class="faint">
          {number(low)} – {number(high)}
        </span>
      </figcaption>
      <div ref={holder} class="plot" />
    </figure>
  );
}

async function load(): Promise<typeof uPlot> {
  const [module] = await Promise.all([import("uplot"), import("uplot/dist/uPlot.min.css")]);
  return module.default;
}

function timeOfDay(seconds: number): string {
  return clock(new Date(seconds * 1000).toISOString()).replace(/^\S+ /, "");
}

function optionsOf(name: string, element: HTMLElement): uPlot.Options {
  const look = getComputedStyle(element);
  const of = (token: string): string => look.getPropertyValue(token).trim();
  const axis = { stroke: of("--faint"), grid: { stroke: of("--line"), width: 1 }, ticks: { show: false }, font: `11px ${of("--font")}` };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "metrics" }, y: false, points: { size: 6 } },
    scales: { x: { time: true } },
    padding: [6, 26, 0, 0],
    axes: [{ ...axis, size: 22, space: 80, values: (_: uPlot, ticks: number[]) => ticks.map(timeOfDay) }, { ...axis, size: 52, space: 34, values: (_: uPlot, ticks: number[]) => ticks.map((tick) => number(tick)) }],
    series: [{}, { label: name, stroke: of("--accent"), width: 1.5, points: { show: false } }],
  };
}
