/**
 * One NATS connection, with what everything else needs on top: replies, JetStream's API or the gate in its place,
 * errors that say why, and a credential that is renewed before it expires. Protocol: sections 7 to 9.
 */

import {
  AuthorizationError,
  headers as newHeaders,
  jwtAuthenticator,
  PermissionViolationError,
  UserAuthenticationExpiredError,
  wsconnect,
} from "@nats-io/nats-core";
import type { Msg, MsgHdrs, NatsConnection } from "@nats-io/nats-core";

import { BUNDLE, PART, Parts } from "./bundle.js";
import { parseCredential } from "./credential.js";
import type { Credential } from "./credential.js";
import { BadPayload, Closed, NatsprocError, NoMesh, NoServer, NotAllowed, ServerUnfit, TimedOut, TooLarge } from "./errors.js";
import { gateSubject, isStored, TARGET } from "./gate.js";
import { decodeObject, encode } from "./messages.js";
import type { Json } from "./messages.js";
import { checkName, Names, newToken } from "./names.js";
import { clock, Queue, sleep } from "./waiting.js";

const CONNECT_SECONDS = 5;
const REQUEST_SECONDS = 5;
const RETRY_SECONDS = 0.1;
const EARLY_SECONDS = 60; // before its end, at most, a credential is renewed
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds
const UNDER_WAY = [10158, 10164]; // of the same message id, or key: said by clusters only, and decides nothing
const NO_STREAM = 10059;

type Fields = Record<string, Json>;
export type Headers = Record<string, string>;

/** JetStream's API answered with an error. */
export class ApiError extends NatsprocError {
  override name = "ApiError";

  constructor(
    subject: string,
    readonly code: number,
    readonly errCode: number,
    description: string,
  ) {
    super(`JetStream refused ${subject}: ${description} (${errCode || code})`);
  }
}

/** Nobody listens on the subject of a request. */
export class NoResponders extends NatsprocError {
  override name = "NoResponders";
}

/** A read of stored entries broke off. What it gave holds. */
export class ReadFailed extends NatsprocError {
  override name = "ReadFailed";
}

/** Whether what is wrong passes by itself, as a lost connection or a missing leader. */
export function passes(error: unknown): boolean {
  if (error instanceof ApiError) return error.code === 503 || UNDER_WAY.includes(error.errCode);
  return [NoServer, ServerUnfit, TimedOut, NoResponders, ReadFailed].some((kind) => error instanceof kind);
}

/** Where a connection goes, and as whom. */
export interface Endpoint {
  /** WebSocket URLs of the server, or of those of a cluster; that in the credential, unless said */
  readonly servers?: string | readonly string[];
  /** the one line that `natsproc grant` prints; a function is called for a new one before it expires */
  readonly credentials?: string | (() => string | Promise<string>);
  /** tells meshes apart on one server; the credential's or `proc`, unless said */
  readonly prefix?: string;
  /** a name to go by on a server that asks for no credentials */
  readonly sender?: string;
}

const words: Record<string, string> = { history: "watch", send: "send to", hold: "command", control: "command" };

/** What somebody does who publishes there, in the words of grants. */
function inWords(subject: string): string {
  const [, namespace, id, right = "", ...more] = subject.split(".");
  if (more.length !== 1 || !words[right]) return `publish to ${subject}`;
  const whom = namespace === "_" ? "the mesh" : namespace === "_nodes" ? "nodes" : `${namespace}/${id === "_" ? "*" : id}`;
  return `${words[right]} ${whom}`;
}

interface Waiter {
  readonly subject: string;
  asked: string;
  tell(item: Msg | Error): void;
}

export class Connection {
  names!: Names;
  sender = "anonymous";
  #nc!: NatsConnection;
  #up = false;
  #why: Error | null = null; // it is closed
  #credential: Credential | null = null;
  #fetching: Promise<void> | null = null;
  #stale = false; // the credential was refused, or has expired
  #fresh = false; // the credential has not been let in yet
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #token = newToken(12);
  readonly #waiting = new Map<string, Waiter>();
  readonly #hooks = { up: new Set<() => void>(), down: new Set<() => void>(), closing: new Set<() => void>() };

  private constructor(private readonly endpoint: Endpoint) {}

  /** Connect. Throws: NoServer, NotAllowed (bad credentials), BadPayload (what is no credential). */
  static async open(endpoint: Endpoint): Promise<Connection> {
    const self = new Connection(endpoint);
    if (endpoint.credentials !== undefined) await self.#fetch();
    else self.sender = checkName(endpoint.sender ?? "anonymous", "sender");
    self.names = new Names(endpoint.prefix ?? (self.#credential?.prefix || "proc"));
    const servers = [endpoint.servers ?? self.#credential?.url ?? []].flat().filter(Boolean);
    if (!servers.length) throw new BadPayload("say which server to connect to: the credential does not know its WebSocket URL");
    if (typeof WebSocket === "undefined") throw new NoServer("this runtime has no WebSocket: Node 22, Deno and browsers have");
    try {
      self.#nc = await self.#dial(servers);
    } catch (error) {
      if (error instanceof NatsprocError) throw error;
      const text = (error as Error).message;
      if (isRefusal(error)) throw new NotAllowed(`the server at ${servers[0]} does not take this credential: ${text}`);
      throw new NoServer(`no nats-server takes WebSockets at ${servers.join(", ")}: ${text || "no connection"}`);
    }
    self.#back();
    void self.#listen();
    for (const prefix of ["_INBOX", "_NODE"]) {
      const callback = (_: Error | null, msg: Msg): void => {
        self.#waiting.get(msg?.subject?.split(".").at(-1) ?? "")?.tell(msg);
      };
      self.#nc.subscribe(`${prefix}.${self.sender}.${self.#token}.*`, { callback });
    }
    return self;
  }

  /** Whether JetStream is asked through the gate, because this credential has no rights on it. */
  get gated(): boolean {
    return this.#credential?.direct === false;
  }

  get watches(): readonly (readonly [string, string])[] {
    return this.gated ? this.#credential!.watches : [];
  }

  get connected(): boolean {
    return this.#up;
  }

  #dial(servers: string[]): Promise<NatsConnection> {
    return wsconnect({
      servers,
      authenticator: (nonce?: string) => {
        const { jwt, seed } = this.#credential ?? {};
        return jwt ? jwtAuthenticator(jwt, new TextEncoder().encode(seed))(nonce) : undefined;
      },
      wsFactory: async (url) => {
        if (this.#stale || (this.#credential?.expires ?? Infinity) < Date.now()) await this.#fetch();
        return { socket: new WebSocket(url), encrypted: url.startsWith("wss:") };
      },
      timeout: CONNECT_SECONDS * 1000,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      reconnectJitter: 250,
      ignoreAuthErrorAbort: true,
      pingInterval: 10_000,
    });
  }

  /** Ask for a credential, once for all who want one. */
  #fetch(): Promise<void> {
    this.#fetching ??= this.#ask().finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  async #ask(): Promise<void> {
    const { credentials } = this.endpoint;
    const found = parseCredential(typeof credentials === "function" ? await credentials() : credentials!);
    if (this.#credential && found.sender !== this.sender) {
      const error = new NotAllowed(`the new credential is ${found.sender}'s, and this connection was opened as ${this.sender}`);
      void this.#end(error);
      throw error;
    }
    this.#credential = found;
    this.sender = found.sender;
    this.#stale = false;
    this.#fresh = true;
    this.#schedule();
  }

  /** Renew the credential in time: a minute before its end, or in the last fifth of what is left of it. */
  #schedule(): void {
    clearTimeout(this.#timer);
    if (!this.#credential?.expires || typeof this.endpoint.credentials !== "function") return;
    const left = this.#credential.expires - Date.now();
    const wait = left - Math.min(EARLY_SECONDS * 1000, left / 5);
    const later = wait > LONGEST_TIMER ? () => this.#schedule() : () => void this.#renew();
    this.#timer = setTimeout(later, Math.max(1000, Math.min(wait, LONGEST_TIMER)));
  }

  async #renew(): Promise<void> {
    if (this.#why) return;
    try {
      await this.#fetch();
    } catch {
      this.#timer = setTimeout(() => void this.#renew(), 5000); // the old one still holds, or the server says so
      return;
    }
    if (this.#up) await this.#nc.reconnect();
  }

  async #listen(): Promise<void> {
    for await (const status of this.#nc.status()) {
      if (status.type === "disconnect") this.#lost();
      else if (status.type === "reconnect") this.#back();
      else if (status.type === "error" && status.error instanceof PermissionViolationError) this.#denied(status.error);
      else if (status.type === "error" && isRefusal(status.error)) {
        if (this.#fresh && !this.#up) void this.#end(new NotAllowed(`the server does not take this credential: ${status.error.message}`));
        this.#stale = this.endpoint.credentials !== undefined;
      }
    }
    await this.#end(new Closed("the connection is closed"));
  }

  #lost(): void {
    this.#up = false;
    for (const { tell, subject } of [...this.#waiting.values()]) {
      tell(new NoServer(`the connection was lost before ${subject} was answered`));
    }
    for (const hook of [...this.#hooks.down]) hook();
  }

  #back(): void {
    this.#up = true;
    this.#fresh = false;
    for (const hook of [...this.#hooks.up]) hook();
  }

  #denied(error: PermissionViolationError): void {
    if (error.operation !== "publish") return; // subscriptions hear of it themselves
    for (const { asked, tell } of [...this.#waiting.values()]) if (asked === error.subject) tell(this.#mayNot(inWords(asked), asked));
  }

  #mayNot(what: string, subject: string): NotAllowed {
    return new NotAllowed(`${this.sender} may not ${what}: ask for a grant that covers it`, subject);
  }

  /** Call `hook` whenever the connection is back (`up`), lost (`down`) or about to be closed; returns how to stop that. */
  on(what: "up" | "down" | "closing", hook: () => void): () => void {
    this.#hooks[what].add(hook);
    return () => this.#hooks[what].delete(hook);
  }

  /** Make sure that it was not closed. Throws: Closed, or why it was. */
  check(): void {
    if (this.#why) throw this.#why;
  }

  /** Publish, without waiting for anything; returns where. Throws: NoServer, NotAllowed, TooLarge, Closed. */
  publish(subject: string, payload: Uint8Array, { reply, headers = {} }: { reply?: string; headers?: Headers } = {}): string {
    this.check();
    if (!this.#up) throw new NoServer("the connection was lost, and is not back yet");
    const limit = (this.#nc.info?.max_payload ?? 1 << 20) - 512;
    if (payload.length > limit) throw new TooLarge(`${payload.length} bytes are more than the server takes (${limit})`);
    let where = subject;
    const hdrs: MsgHdrs = newHeaders();
    for (const [name, value] of Object.entries(headers)) hdrs.set(name, value);
    if (this.gated && isStored(this.names, subject)) {
      where = gateSubject(this.names, this.sender, subject, payload);
      hdrs.set(TARGET, subject);
      hdrs.set(BUNDLE, "1");
    }
    const some = hdrs.keys().length > 0;
    this.#nc.publish(where, payload, { ...(reply ? { reply } : {}), ...(some ? { headers: hdrs } : {}) });
    return where;
  }

  /** Hear what comes on a subject; `denied` is told if the server does not allow it. Returns how to stop that. */
  subscribe(subject: string, hear: (msg: Msg) => void, denied: (error: NotAllowed) => void = () => {}): () => void {
    const subscription = this.#nc.subscribe(subject, {
      callback: (error, msg) => (error ? denied(this.#mayNot(`subscribe to ${subject}`, subject)) : hear(msg)),
    });
    return () => {
      if (!this.#why) subscription.unsubscribe();
    };
  }

  /**
   * Publish a request and give what is answered, as it comes; `node` takes the inbox that no client may publish to.
   * A denial, nobody there, and a lost connection are thrown by `take`. Call `close` in the end.
   */
  ask(subject: string, payload: Uint8Array, { headers = {}, node = false }: { headers?: Headers; node?: boolean } = {}) {
    const token = newToken(12);
    const queue = new Queue<Msg>();
    const parts = new Parts();
    const tell = (item: Msg | Error): void => {
      const whole = item instanceof Error || !this.gated ? item : joined(parts, item);
      if (whole) queue.push(whole instanceof Error ? whole : (this.#failure(whole, subject) ?? whole));
    };
    const waiter: Waiter = { subject, asked: subject, tell };
    this.#waiting.set(token, waiter);
    const close = (): boolean => this.#waiting.delete(token);
    try {
      const reply = `${node ? "_NODE" : "_INBOX"}.${this.sender}.${this.#token}.${token}`;
      waiter.asked = this.publish(subject, payload, { reply, headers });
    } catch (error) {
      close();
      throw error;
    }
    return { take: (seconds?: number) => queue.take(seconds, `no answer on ${subject}`), close };
  }

  /** What an answer without a payload says of a request that came to nothing, if it does. */
  #failure(msg: Msg, subject: string): Error | null {
    if (msg.data.length) return null;
    const gate = msg.headers?.has("Natsproc-Gate") ?? false;
    const status = statusOf(msg);
    if (status === 403 && gate && !msg.headers?.has("Nats-Sequence")) {
      return new NotAllowed(`${this.sender} may not: ${msg.headers?.get("Description")}`, subject);
    }
    if (status !== 503 || gate) return null;
    if (!isStored(this.names, subject)) return new NoResponders(`nobody listens on ${subject}`);
    return new ServerUnfit(
      this.gated
        ? "this credential reads and writes through the mesh's gate, and none answers: `natsproc up` and `natsproc gate` run one"
        : `JetStream does not answer on ${subject}: is it on, and is there a mesh (\`natsproc setup\`)?`,
    );
  }

  /** Send a request and return its first reply. Throws: what `ask` does, TimedOut. */
  async request(subject: string, payload: Uint8Array, headers: Headers = {}): Promise<Msg> {
    const asked = this.ask(subject, payload, { headers, node: true });
    try {
      return await asked.take(REQUEST_SECONDS);
    } finally {
      asked.close();
    }
  }

  /** Call JetStream's API. Throws: ApiError, NoMesh, and what `request` does. */
  async api(call: string, body?: Fields): Promise<Fields> {
    const subject = `$JS.API.${call}`;
    return answered(subject, await this.request(subject, body ? encode(body) : new Uint8Array()));
  }

  /** Store one message and return its acknowledgement. Throws: ApiError, and what `request` does. */
  async store(subject: string, payload: Uint8Array, headers: Headers): Promise<Fields> {
    const answer = answered(subject, await this.request(subject, payload, headers));
    if ("seq" in answer) return answer;
    throw new TimedOut(`${subject}: the stream gave no acknowledgement (no leader?)`);
  }

  /** Call until it works, as long as what is wrong passes by itself. */
  async insist<T>(call: () => Promise<T>, seconds = 30): Promise<T> {
    for (const until = clock() + seconds; ; await sleep(RETRY_SECONDS)) {
      try {
        return await call();
      } catch (error) {
        if (!passes(error) || clock() > until) throw error;
        this.check();
      }
    }
  }

  /** Send what is pending and close. */
  async close(): Promise<void> {
    this.#leave();
    if (this.#up) await Promise.race([this.#nc.flush().catch(() => {}), sleep(1)]);
    await this.#end(new Closed("the connection is closed"));
  }

  #leave(): void {
    for (const hook of [...this.#hooks.closing]) hook();
  }

  async #end(why: Error): Promise<void> {
    if (this.#why) return;
    this.#leave();
    this.#why = why;
    this.#up = false;
    clearTimeout(this.#timer);
    for (const { tell } of [...this.#waiting.values()]) tell(why);
    for (const hook of [...this.#hooks.up, ...this.#hooks.down]) hook();
    await this.#nc?.close();
  }
}

/** An answer as it was meant, or what is wrong with it; null if more of it is to come. */
function joined(parts: Parts, msg: Msg): Msg | Error | null {
  const part = msg.headers?.get(PART);
  if (!part) return msg;
  try {
    const data = parts.join(part, msg.data);
    return data && Object.create(msg, { data: { value: data } });
  } catch (error) {
    return new TimedOut(`a part of an answer was lost on the way: ${(error as Error).message}`);
  }
}

function answered(subject: string, msg: Msg): Fields {
  const answer = msg.data.length ? decodeObject(msg.data, subject) : {};
  const { error } = answer;
  if (!error) return answer;
  if (error.err_code === NO_STREAM) throw new NoMesh(`the mesh is not there: ${error.description}. \`natsproc setup\` makes it`);
  throw new ApiError(subject, error.code ?? 0, error.err_code ?? 0, String(error.description));
}

/** The status of an answer, from the server itself or through the gate; 0 if it has none. */
export function statusOf(msg: Msg): number {
  return msg.headers?.code || Number(msg.headers?.get("Status")) || 0;
}

function isRefusal(error: unknown): error is Error {
  return error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError;
}
