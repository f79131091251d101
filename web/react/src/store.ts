/** What components show, outside of them: they are told once a frame at most, whatever comes meanwhile. */

const HIDDEN_MS = 100; // where no frames are drawn

export abstract class Store<S> {
  #shown: S;
  readonly #listeners = new Set<() => void>();
  #running: AbortController | null = null;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #forgetFrame: (() => void) | null = null;

  constructor(initial: S) {
    this.#shown = initial;
  }

  /** For `useSyncExternalStore`: it runs while anybody listens. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    clearTimeout(this.#leaving);
    if (!this.#running) {
      this.#running = new AbortController();
      this.start(this.#running.signal);
    }
    return () => {
      this.#listeners.delete(listener);
      // who leaves may be back at once, as under StrictMode
      if (!this.#listeners.size) this.#leaving = setTimeout(() => this.#stop());
    };
  };

  readonly snapshot = (): S => this.#shown;

  /** Begin, until the signal is aborted. */
  protected abstract start(signal: AbortSignal): void;

  /** What is to be shown now. */
  protected abstract state(): S;

  /** It has come to rest; nobody listens. */
  protected rest(): void {}

  /** Something is new: show it with the next frame. */
  protected changed(): void {
    this.#forgetFrame ??= nextFrame(() => {
      this.#forgetFrame = null;
      this.#shown = this.state();
      for (const listener of this.#listeners) listener();
    });
  }

  #stop(): void {
    this.#running?.abort();
    this.#running = null;
    this.#forgetFrame?.();
    this.#forgetFrame = null;
    this.#shown = this.state();
    this.rest();
  }
}

/** Do it with the next frame, or soon, in a page that is not drawn; returns how to prevent that. */
function nextFrame(show: () => void): () => void {
  let frame = 0;
  const forget = (): void => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
  const once = (): void => {
    forget();
    show();
  };
  const timer = setTimeout(once, HIDDEN_MS);
  frame = requestAnimationFrame(once);
  return forget;
}
