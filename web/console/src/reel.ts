/** The times of a log, for playing it again. */

/** Seconds since the first of them for each; a clock that was set back stands still, as does one that is unreadable. */
export function timesOf(items: readonly { readonly time?: string }[]): number[] {
  let first = NaN;
  let latest = 0;
  return items.map(({ time }) => {
    const at = Date.parse(time ?? "") / 1000;
    if (Number.isNaN(first)) first = at;
    if (at - first > latest) latest = at - first;
    return latest;
  });
}

/** How many of these rising times lie at or before that moment. */
export function indexAt(times: readonly number[], moment: number): number {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! <= moment) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Points of one metric. */
export interface Series {
  readonly name: string;
  readonly times: readonly number[];
  /** null between the points of two runs */
  readonly values: readonly (number | null)[];
}

interface Points {
  times: number[];
  values: number[];
  runs: number[];
  every: number;
  seen: number;
}

/** Metrics by name, as they grow; of very many points every other one is let go. */
export class Metrics {
  #series = new Map<string, Points>();
  readonly #most: number;
  readonly #names: number;

  constructor(most = 4000, names = 60) {
    this.#most = most;
    this.#names = names;
  }

  /** Take the data of a `metric` event; what is no number is left out. */
  add(time: string, data: unknown, run = 1): void {
    const at = Date.parse(time) / 1000;
    if (typeof data !== "object" || data === null || Number.isNaN(at)) return;
    for (const [name, value] of Object.entries(data)) {
      if (typeof value === "number" && Number.isFinite(value)) this.#put(name, at, value, run);
    }
  }

  get all(): Series[] {
    return [...this.#series].map(([name, points]) => ({ name, ...apart(points) }));
  }

  #put(name: string, at: number, value: number, run: number): void {
    let one = this.#series.get(name);
    if (!one) {
      if (this.#series.size >= this.#names) return;
      this.#series.set(name, (one = { times: [], values: [], runs: [], every: 1, seen: 0 }));
    }
    if (one.seen++ % one.every) return;
    one.times.push(Math.max(at, one.times.at(-1) ?? at));
    one.values.push(value);
    one.runs.push(run);
    if (one.times.length < this.#most) return;
    for (const points of ["times", "values", "runs"] as const) one[points] = one[points].filter((_, index) => index % 2 === 0);
    one.every *= 2;
  }
}

/** The points, with a hole where another run begins: no line leads from one run to the next. */
function apart({ times, values, runs }: Points): Pick<Series, "times" | "values"> {
  const begins = (index: number): boolean => index > 0 && runs[index] !== runs[index - 1];
  return {
    times: times.flatMap((time, index) => (begins(index) ? [time, time] : [time])),
    values: values.flatMap((value, index) => (begins(index) ? [null, value] : [value])),
  };
}
