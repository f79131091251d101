/**
 * Where a request that is meant for JetStream is asked for, by who has no rights there. Protocol: section 9. Only for
 * what this client asks, which are reads of logs, claims, records and leases, and messages: the gate checks, not we.
 */

import { decodeObject } from "./messages.js";
import type { Names } from "./names.js";

/** The header with the subject that the request is for. */
export const TARGET = "Natsproc-Target";

/** Whether JetStream takes what is published there. */
export function isStored(names: Names, subject: string): boolean {
  const tokens = subject.split(".");
  return /^\$(JS|KV|O)\./.test(subject) || (tokens[0] === names.prefix && /^(events|inbox)$/.test(tokens[3] ?? ""));
}

/** The subject on which `sender` asks the gate. Throws: BadPayload. */
export function gateSubject(names: Names, sender: string, target: string, payload: Uint8Array): string {
  return `${names.prefix}.${scope(names, target, payload)}.${sender}`;
}

function scope(names: Names, target: string, payload: Uint8Array): string {
  const [, verb, subject] = /^\$JS\.API\.(DIRECT\.GET|STREAM\.\w+\.?GET|STREAM\.INFO)\.[^.]+\.?(.*)/.exec(target) ?? [];
  if (!verb) return `${target.split(".", 3).slice(1).join(".")}.${isHeld(payload) ? "hold" : "send"}`;
  const { next_by_subj: next, last_by_subj: last, multi_last: many } = payload.length ? decodeObject(payload) : {};
  const places: string[][] = (many ?? [subject || (next ?? last ?? `$KV.${names.store("LEASES")}.*`)]).map((one: string) => {
    const [first, second = "", ...others] = one.split(".");
    return first !== "$KV" ? [second, others[0]!] : second === names.store("LEASES") ? ["_nodes", others[0]!] : others;
  });
  // one process's, a namespace's, or the mesh's
  const common = (index: number): string => {
    const found = new Set(places.map((place) => place[index]!));
    return found.size > 1 || found.has("*") ? "_" : [...found][0]!;
  };
  const namespace = common(0);
  return `${namespace}.${namespace === "_" ? "_" : common(1)}.history`;
}

/** Whether a message is a command on hold; what is not a message of ours is plain data. */
function isHeld(payload: Uint8Array): boolean {
  try {
    const { id, data, kind } = decodeObject(payload);
    return id !== undefined && data !== undefined && kind === "command";
  } catch {
    return false;
  }
}
