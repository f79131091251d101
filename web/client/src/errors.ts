/**
 * Every error that the client throws on purpose, by the names that they have in Python.
 *
 *     NatsprocError
 *     ├── NoServer         nothing answers where a nats-server was expected
 *     ├── ServerUnfit      the server answers, but has no JetStream, or no gate for this credential
 *     ├── NoMesh           the server is fine, but has no streams and buckets of ours
 *     ├── NotAllowed       the server or the gate refused it to this credential
 *     ├── TimedOut         no answer in time; whether it happened is unknown
 *     ├── BadName          an id, namespace or sender that cannot be one
 *     ├── BadPayload       data that is not JSON, or a cursor or credential that is not one of ours
 *     ├── TooLarge         more bytes than the server takes in one message
 *     ├── NoSuchProcess    no process of that id has ever run here, or it was pruned
 *     ├── Unreachable      the process's node does not answer
 *     ├── Refused          the process, or its state, said no
 *     │   └── AlreadyEnded the run of that id has ended
 *     ├── ProcessFailed    the run whose result was asked for did not complete
 *     └── Closed           used after it was closed
 */
export class NatsprocError extends Error {
  override name = "NatsprocError";
}

export class NoServer extends NatsprocError {
  override name = "NoServer";
}

export class ServerUnfit extends NatsprocError {
  override name = "ServerUnfit";
}

export class NoMesh extends NatsprocError {
  override name = "NoMesh";
}

/** The server or the gate refused it; `subject` is the one that was named. */
export class NotAllowed extends NatsprocError {
  override name = "NotAllowed";

  constructor(
    text: string,
    readonly subject = "",
  ) {
    super(text);
  }
}

export class TimedOut extends NatsprocError {
  override name = "TimedOut";
}

export class BadName extends NatsprocError {
  override name = "BadName";
}

export class BadPayload extends NatsprocError {
  override name = "BadPayload";
}

export class TooLarge extends NatsprocError {
  override name = "TooLarge";
}

export class NoSuchProcess extends NatsprocError {
  override name = "NoSuchProcess";
}

export class Unreachable extends NatsprocError {
  override name = "Unreachable";
}

export class Refused extends NatsprocError {
  override name = "Refused";
}

export class AlreadyEnded extends Refused {
  override name = "AlreadyEnded";
}

/** How a run ended. */
export interface Exit {
  /** completed, failed, interrupted, cancelled, killed */
  readonly status: string;
  /** the exit code that it counts as; 128 + N for signal N */
  readonly code: number;
  readonly run: number;
  readonly offset: number;
  readonly signal: number | null;
  readonly result: unknown;
  readonly error: string | null;
}

/** `exit` says how it ended. */
export class ProcessFailed extends NatsprocError {
  override name = "ProcessFailed";

  constructor(
    text: string,
    readonly exit: Exit,
  ) {
    super(text);
  }
}

export class Closed extends NatsprocError {
  override name = "Closed";
}
