/** A live list of processes. */

import type { Mesh, ProcessInfo, Selection } from "natsproc";
import { useMemo, useSyncExternalStore } from "react";

import { useMesh } from "./mesh.js";
import { Store } from "./store.js";

const EVERY_SECONDS = 5;

export interface UseProcessesOptions extends Selection {
  /** what has ended, too */
  readonly ended?: boolean;
  /** seconds after which is looked who is quiet or unreachable, 5 unless said */
  readonly every?: number;
}

export interface ProcessesState {
  /** by namespace and by when they started */
  readonly processes: readonly ProcessInfo[];
  /** the list is not there yet */
  readonly loading: boolean;
  readonly error: Error | null;
}

const NOTHING: ProcessesState = { processes: [], loading: true, error: null };

class Listing extends Store<ProcessesState> {
  readonly #found = new Map<string, ProcessInfo>();
  #loading = true;
  #error: Error | null = null;

  constructor(
    private readonly mesh: Mesh,
    private readonly options: UseProcessesOptions,
  ) {
    super(NOTHING);
  }

  protected override start(signal: AbortSignal): void {
    void this.#watch(signal);
    void this.#look(signal);
    const timer = setInterval(() => this.#look(signal), (this.options.every ?? EVERY_SECONDS) * 1000);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  protected override state(): ProcessesState {
    const order = ({ address, started }: ProcessInfo): string => `${address.namespace} ${started} ${address.id}`;
    const processes = [...this.#found.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
    return { processes, loading: this.#loading, error: this.#error };
  }

  /** Changes, as they come. */
  async #watch(signal: AbortSignal): Promise<void> {
    try {
      for await (const { address, record } of this.mesh.watch({ ...this.options, signal })) {
        const old = this.#found.get(address.key);
        if (record) this.#found.set(address.key, { ...record, quiet: old?.quiet ?? null, gone: null });
        else if (this.options.ended) void this.#look(signal);
        else this.#found.delete(address.key);
        this.changed();
      }
    } catch (error) {
      this.#fail(error as Error, signal);
    }
  }

  /** All that there is, with what no change says. */
  async #look(signal: AbortSignal): Promise<void> {
    try {
      const found = await this.mesh.list(this.options);
      if (signal.aborted) return;
      this.#found.clear();
      for (const each of found) this.#found.set(each.address.key, each);
      this.#loading = false;
      this.#error = null;
      this.changed();
    } catch (error) {
      this.#fail(error as Error, signal);
    }
  }

  #fail(error: Error, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#error = error;
    this.changed();
  }
}

/** What runs, as it changes. */
export function useProcesses(options: UseProcessesOptions = {}): ProcessesState {
  const { mesh } = useMesh();
  const wanted = JSON.stringify(options);
  const listing = useMemo(() => (mesh ? new Listing(mesh, JSON.parse(wanted) as UseProcessesOptions) : null), [mesh, wanted]);
  return useSyncExternalStore(listing?.subscribe ?? nobody, listing?.snapshot ?? nothing, nothing);
}

const nothing = (): ProcessesState => NOTHING;
const nobody = (): (() => void) => () => {};
