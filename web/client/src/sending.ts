/** Messages: how they are stored, and what becomes of them, as the process's log says. Protocol: section 3. */

import type { Connection } from "./connection.js";
import { AlreadyEnded, BadPayload, Closed, NoServer, NoSuchProcess, NotAllowed, Refused, TimedOut } from "./errors.js";
import { History } from "./history.js";
import { encode, isObject } from "./messages.js";
import type { Json, ProcessEvent } from "./messages.js";
import { newToken } from "./names.js";
import type { Address } from "./names.js";
import { recordAt } from "./registry.js";
import { Follower } from "./tail.js";

export type When = "idle" | "next" | "now";

const WHEN: readonly string[] = ["idle", "next", "now"]; // the gentlest first
const STORE_SECONDS = 10;

export interface SendOptions {
  /** sending it again with the same id within two minutes stores it once */
  readonly id?: string;
  /** when it is to land while the process is in a turn */
  readonly when?: When;
}

export interface WaitOptions {
  /** seconds */
  readonly timeout?: number;
}

/** Store a message in a process's inbox and return once it is. */
export async function store(connection: Connection, address: Address, data: Json, { id, when }: SendOptions): Promise<Sent> {
  const { names, sender } = connection;
  const message = { id: id ?? newToken(), time: new Date().toISOString(), data, ...(when ? { when } : {}) };
  const payload = encode(message, "message");
  const headers = { "Nats-Msg-Id": `${address.key}.${sender}.${message.id}` };
  const keep = async (): Promise<Sent> => {
    const [run, after] = await Promise.all([runOf(connection, address, when), endOf(connection, address)]);
    const { seq, duplicate = false } = await connection.insist(() => connection.store(names.by(address, "inbox", sender), payload, headers));
    const again = id !== undefined && duplicate; // of an id that nobody else can have, it is our own repeat
    return new Sent(connection, address, { id: message.id, position: seq, duplicate: again, run, after: again ? 0 : after });
  };
  const late = (): Error => {
    const hint = `sending it again with id '${message.id}' stores it once`;
    if (!connection.connected) return new NoServer(`the connection was lost, and did not return in ${STORE_SECONDS} s; ${hint}`);
    return new TimedOut(`the message to ${address} was not acknowledged within ${STORE_SECONDS} s; ${hint}`);
  };
  return within(keep(), STORE_SECONDS, late);
}

/** The run that is to take a message; 0 where the sender may not know. Throws: NoSuchProcess, AlreadyEnded, Refused. */
async function runOf(connection: Connection, address: Address, when: string | undefined): Promise<number> {
  if (when !== undefined && !WHEN.includes(when)) throw new BadPayload(`'${when}' is no time for a message to land: ${WHEN.join(", ")}`);
  let record;
  try {
    record = await connection.insist(() => recordAt(connection, address));
  } catch (error) {
    if (error instanceof NotAllowed && connection.gated) return 0; // the right to send is not that to watch
    throw error;
  }
  if (!record) throw new NoSuchProcess(`no process ${address} is known here`);
  if (record.ended) throw new AlreadyEnded(`run ${record.run} of ${address} has ended (${record.state}): nobody will read the message`);
  const allowed = WHEN.filter((time) => record.allow.includes(time));
  if (when && allowed.length && WHEN.indexOf(allowed[0]!) > WHEN.indexOf(when)) {
    throw new Refused(`${address} takes no message '${when}', only ${allowed.join(" or ")}: send it so, or leave it to the process`);
  }
  return record.run;
}

/** The position of a process's last event; 0 if it is not to be had, which costs whoever asks only time. */
async function endOf(connection: Connection, address: Address): Promise<number> {
  const { names } = connection;
  const last = await new History(connection, names.eventStream).last(names.of(address, "events")).catch(() => null);
  return last?.position ?? 0;
}

/** What `work` comes to, if it does so in time; else `late` says what is thrown. */
async function within<T>(work: Promise<T>, seconds: number, late: () => Error): Promise<T> {
  if (seconds === Infinity) return work;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(late()), seconds * 1000)));
  return Promise.race([work, timeout]).finally(() => clearTimeout(timer));
}

/** A message that is stored in a process's inbox. */
export class Sent {
  readonly id: string;
  /** sequence in the inbox stream */
  readonly position: number;
  /** a message of that id was stored before, and this one was not */
  readonly duplicate: boolean;
  readonly #run: number;
  readonly #after: number;

  constructor(
    private readonly connection: Connection,
    readonly address: Address,
    stored: { id: string; position: number; duplicate: boolean; run: number; after: number },
  ) {
    ({ id: this.id, position: this.position, duplicate: this.duplicate, run: this.#run, after: this.#after } = stored);
  }

  /**
   * Return once the process has taken it: the offset of the event that says so, and when it landed. Throws: Refused if
   * it does not take it from this sender, AlreadyEnded if the run ended before, TimedOut, NotAllowed.
   */
  async consumed({ timeout = Infinity }: WaitOptions = {}): Promise<{ offset: number; run: number; when: string }> {
    const { offset, run, data } = await this.#until("received", timeout);
    return { offset, run, when: String(data.when ?? "idle") };
  }

  /** Return what the process replies to it. Throws: as `consumed`. */
  async reply({ timeout = Infinity }: WaitOptions = {}): Promise<Json> {
    return (await this.#until("replied", timeout)).data.data;
  }

  async #until(type: string, timeout: number): Promise<ProcessEvent> {
    const start = this.#after ? ({ kind: "behind", position: this.#after } as const) : ({ kind: "first" } as const);
    const follower = new Follower(this.connection, this.address, { start, untilEnd: false, follow: true });
    const what = type === "received" ? "taken" : "replied to";
    const late = (): Error => new TimedOut(`${this.address} has not ${what} message ${this.id} within ${timeout} s; it is stored, and waits`);
    try {
      return await within(this.#find(follower, type), timeout, late);
    } finally {
      follower.close();
    }
  }

  /** The first event of that type that counts and is about this message. */
  async #find(follower: Follower, type: string): Promise<ProcessEvent> {
    for (let taken = ""; !follower.ended; ) {
      await follower.step();
      for (const event of follower.items.splice(0)) {
        if (event.kind !== "event") continue;
        if (this.#isMeant(event)) {
          if (event.data.refused) throw new Refused(`${this.address} does not take message ${this.id}: ${event.data.refused}`);
          if (event.type === type) return event;
          taken = ` (taken at event ${event.offset})`;
        }
        if (event.type === "exited" && event.run >= this.#run) throw this.#never(event, type === "replied" ? `replying to${taken}` : "taking");
      }
    }
    throw new Closed(`the log of ${this.address} is not followed any more`);
  }

  #never({ run, data }: ProcessEvent, what: string): AlreadyEnded {
    return new AlreadyEnded(`run ${run} of ${this.address} ended (${data?.status ?? ""}) without ${what} message ${this.id}`);
  }

  #isMeant({ cause, type, data }: ProcessEvent): boolean {
    if (cause !== this.id || !["received", "replied"].includes(type) || !isObject(data)) return false;
    return data.sender === this.connection.sender && (data.position ?? this.position) === this.position;
  }
}
