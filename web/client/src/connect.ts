/** Everyone's side of a mesh: find processes, watch them, speak to them. */

import { Connection } from "./connection.js";
import type { Endpoint } from "./connection.js";
import { NotAllowed } from "./errors.js";
import { quietOf, unreachableAmong } from "./liveness.js";
import type { Gone } from "./liveness.js";
import { Address, checkName } from "./names.js";
import { ProcessHandle } from "./process.js";
import { listRecords, watchRecords } from "./registry.js";
import type { Change } from "./registry.js";
import type { ProcessRecord } from "./records.js";
import { Queue } from "./waiting.js";

const GATE_SECONDS = 10; // for which a gate that is just being started is waited for

export interface ConnectOptions extends Endpoint {
  /** of ids that name none; `default` unless said */
  readonly namespace?: string;
}

export interface Selection {
  /** `*` for all of them; the mesh's own unless said */
  readonly namespace?: string;
  /** that one only, of one namespace */
  readonly id?: string;
  readonly kind?: string;
  /** that it has to have, all of them */
  readonly labels?: Readonly<Record<string, string>>;
}

export interface WatchOptions extends Selection {
  /** false: not what runs already */
  readonly present?: boolean;
  readonly signal?: AbortSignal;
}

/** A process in a list. */
export interface ProcessInfo extends ProcessRecord {
  /** seconds since its last event, by the server's clock; null if there is none */
  readonly quiet: number | null;
  /** since when nobody owns it; `state` is `unreachable` then */
  readonly gone: Gone | null;
}

/**
 * Connect to a mesh. Throws: NoServer, ServerUnfit, NoMesh; NotAllowed if the server does not take the credential;
 * BadPayload if it is none.
 *
 * `credentials` is the line that `natsproc grant` prints, or a function that gets one, as from a page's own back end.
 * It is called again before the credential expires; the connection then goes on without a gap.
 */
export async function connect({ namespace = "default", ...endpoint }: ConnectOptions): Promise<Mesh> {
  const mesh = new Mesh(await Connection.open(endpoint), checkName(namespace, "namespace"));
  await mesh.check();
  return mesh;
}

/** All the processes under one prefix on one NATS account. Made by `connect`. */
export class Mesh {
  constructor(
    private readonly connection: Connection,
    readonly namespace: string,
  ) {}

  /** Make sure that there is a mesh, or a gate to it. Throws: NoMesh, ServerUnfit; then the connection is closed. */
  async check(): Promise<void> {
    const { connection } = this;
    try {
      await connection.insist(() => connection.api(`STREAM.INFO.${connection.names.store("EVENTS")}`), GATE_SECONDS);
    } catch (error) {
      if (error instanceof NotAllowed) return; // one that may not even watch
      await this.close();
      throw error;
    }
  }

  /** As whom the mesh sees this connection. */
  get sender(): string {
    return this.connection.sender;
  }

  /** Whether there is a connection now. A lost one comes back by itself. */
  get connected(): boolean {
    return this.connection.connected;
  }

  /** Call `hook` whenever the connection is back (`up`) or lost (`down`); returns how to stop that. */
  on(what: "up" | "down", hook: () => void): () => void {
    return this.connection.on(what, hook);
  }

  /** Anyone's handle on the process of that id; it need not run, or exist. Throws: BadName. */
  process(process: string | Address): ProcessHandle {
    return new ProcessHandle(this.connection, typeof process === "string" ? Address.parse(process, this.namespace) : process);
  }

  /** What runs, and with `ended` what has ended, too; with `watch`, as `watch`. Throws: NotAllowed. */
  list(options?: Selection & { readonly ended?: boolean; readonly watch?: false }): Promise<ProcessInfo[]>;
  list(options: WatchOptions & { readonly watch: true }): AsyncGenerator<Change, void>;
  list({ watch, ...options }: WatchOptions & { readonly ended?: boolean; readonly watch?: boolean } = {}): Promise<ProcessInfo[]> | AsyncGenerator<Change, void> {
    return watch ? this.watch(options) : this.#list(options);
  }

  #list({ ended = false, ...selection }: Selection & { readonly ended?: boolean }): Promise<ProcessInfo[]> {
    const { connection } = this;
    return connection.insist(async () => {
      const records = await listRecords(connection, this.#space(selection), ended, selection.id);
      const chosen = records.filter((record) => matches(record, selection));
      const live = chosen.filter((record) => !record.ended);
      const [quiet, gone] = await Promise.all([quietOf(connection, chosen), unreachableAmong(connection, live)]);
      return chosen.map((record) => {
        const { key } = record.address;
        const lost = gone.get(key) ?? null;
        return { ...record, state: lost ? "unreachable" : record.state, quiet: quiet.get(key) ?? null, gone: lost };
      });
    }, 5);
  }

  /**
   * Every change of what runs: a process's address, and its record or null once it has ended. What runs already comes
   * first, unless `present` is false. After a reconnect all come again. Ends when `signal` is aborted.
   */
  async *watch({ present = true, signal, ...selection }: WatchOptions = {}): AsyncGenerator<Change, void> {
    const queue = new Queue<Change | "look" | "stop">();
    const stop = (): void => queue.push("stop");
    if (signal?.aborted) return;
    signal?.addEventListener("abort", stop);
    const shown = new Set<string>();
    try {
      for await (const change of watchRecords(this.connection, this.#space(selection), present, queue, selection.id)) {
        const { record, address } = change;
        if (record ? !matches(record, selection) : !shown.delete(address.key) && narrows(selection)) continue;
        if (record) shown.add(address.key);
        yield change;
      }
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #space({ namespace = this.namespace }: Selection): string {
    return namespace === "*" ? namespace : checkName(namespace, "namespace");
  }

  /** Disconnect. Everything that is watched goes on. */
  close(): Promise<void> {
    return this.connection.close();
  }
}

function narrows({ kind, labels }: Selection): boolean {
  return kind !== undefined || labels !== undefined;
}

function matches(record: ProcessRecord, { kind, labels = {} }: Selection): boolean {
  return (kind === undefined || record.kind === kind) && Object.entries(labels).every(([name, value]) => record.labels[name] === value);
}
