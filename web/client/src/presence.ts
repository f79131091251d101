/** Says who watches, to the process's owner, who counts viewers in its record. Protocol: section 6.1. */

import type { Connection } from "./connection.js";
import { encode } from "./messages.js";
import { newToken } from "./names.js";
import type { Address } from "./names.js";

const ANNOUNCE_SECONDS = 10;

/** Be counted among the viewers of a process, as far as that is allowed; returns how to stop that. */
export function announce(connection: Connection, address: Address): () => void {
  const subject = connection.names.by(address, "viewers", connection.sender);
  const viewer = newToken(8);
  const say = (left = false): void => {
    try {
      connection.publish(subject, encode({ viewer, ...(left && { left }) }));
    } catch {
      // said again when the connection is back
    }
  };
  const stop = (): void => {
    clearInterval(timer);
    for (const forget of forgets) forget();
    say(true);
  };
  const timer = setInterval(say, ANNOUNCE_SECONDS * 1000);
  const forgets = [connection.on("up", () => say()), connection.on("closing", stop)];
  say();
  return stop;
}
