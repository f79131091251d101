/** Small things to wait with. Times are in seconds. */

import { TimedOut } from "./errors.js";

export function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** The time that only rises, in seconds. */
export function clock(): number {
  return performance.now() / 1000;
}

/** Something that one waits for and others set. */
export class Signal {
  #set = false;
  #wake: () => void = () => {};

  set(): void {
    this.#set = true;
    this.#wake();
  }

  /** Return once it is set, or after that time; whether it was. It is not set any more then. */
  async wait(seconds = Infinity): Promise<boolean> {
    if (!this.#set) {
      await new Promise<void>((resolve) => {
        const timer = seconds < Infinity ? setTimeout(resolve, seconds * 1000) : undefined;
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const was = this.#set;
    this.#set = false;
    return was;
  }
}

/** What comes, in order, for one who takes it. An error is thrown at who takes it. */
export class Queue<T> {
  readonly #items: (T | Error)[] = [];
  readonly #signal = new Signal();

  push(item: T | Error): void {
    this.#items.push(item);
    this.#signal.set();
  }

  /** The next one. Throws: what was pushed, if it is an error; TimedOut. */
  async take(seconds = Infinity, what = "nothing came"): Promise<T> {
    const until = clock() + seconds;
    while (!this.#items.length) {
      const left = until - clock();
      if (left <= 0) throw new TimedOut(`${what} within ${seconds} s`);
      await this.#signal.wait(left);
    }
    const item = this.#items.shift()!;
    if (item instanceof Error) throw item;
    return item;
  }
}
