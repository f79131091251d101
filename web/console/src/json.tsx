/** Any JSON value: in a line, and unfolded as far as somebody wants. */

import { signal } from "@preact/signals";

import { isObject } from "./fold.ts";
import { brief, number, visible } from "./words.ts";

const AT_ONCE = 100; // members that are shown of one object or array
const LONGEST = 20_000; // characters of one text

const unfolded = signal<ReadonlySet<string>>(new Set());

export function isUnfolded(name: string): boolean {
  return unfolded.value.has(name);
}

export function unfold(name: string, yes: boolean): void {
  const next = new Set(unfolded.value);
  if (yes) next.add(name);
  else next.delete(name);
  unfolded.value = next;
}

/** A value in one line, which unfolds where there is more to it. `name` is what the unfolding is remembered by. */
export function Json({ value, name }: { readonly value: unknown; readonly name: string }) {
  if (typeof value === "string" && value.length <= 500) return <span class="prose">{visible(value)}</span>;
  if (typeof value !== "object" && typeof value !== "string") return <span class="json">{scalar(value)}</span>;
  if (value === null || (typeof value === "object" && !Object.keys(value).length)) return <span class="json">{JSON.stringify(value)}</span>;
  const open = isUnfolded(name);
  return (
    <div class="json">
      <button type="button" class="fold" aria-expanded={open} onClick={() => unfold(name, !open)}>
        <span class="twist" aria-hidden="true" />
        <span class="brief">{open ? sizeOf(value) : brief(value, 240)}</span>
      </button>
      {open && (typeof value === "string" ? <pre class="long">{visible(value.slice(0, LONGEST))}</pre> : <Tree value={value} name={name} />)}
    </div>
  );
}

function Tree({ value, name }: { readonly value: object; readonly name: string }) {
  const members = Object.entries(value);
  const all = isUnfolded(`${name}…`);
  return (
    <ul class="tree">
      {(all ? members : members.slice(0, AT_ONCE)).map(([key, item]) => (
        <li key={key}>
          <span class="key">{visible(key)}</span> <Branch value={item} name={`${name}.${key}`} />
        </li>
      ))}
      {!all && members.length > AT_ONCE && (
        <li>
          <button type="button" class="link" onClick={() => unfold(`${name}…`, true)}>
            {members.length - AT_ONCE} more
          </button>
        </li>
      )}
    </ul>
  );
}

function Branch({ value, name }: { readonly value: unknown; readonly name: string }) {
  if (typeof value !== "object" || value === null || !Object.keys(value).length) return <>{scalar(value)}</>;
  const open = isUnfolded(name);
  return (
    <>
      <button type="button" class="fold" aria-expanded={open} onClick={() => unfold(name, !open)}>
        <span class="twist" aria-hidden="true" />
        <span class="brief">{open ? sizeOf(value) : brief(value, 120)}</span>
      </button>
      {open && <Tree value={value} name={name} />}
    </>
  );
}

function scalar(value: unknown) {
  if (typeof value === "string") return <span class="value text">{JSON.stringify(visible(value.slice(0, LONGEST)))}</span>;
  if (typeof value === "number") return <span class="value">{number(value)}</span>;
  return <span class="value">{JSON.stringify(value) ?? ""}</span>;
}

function sizeOf(value: unknown): string {
  if (typeof value === "string") return `${value.length} characters`;
  const count = Object.keys(value as object).length;
  if (Array.isArray(value)) return `${count} item${count === 1 ? "" : "s"}`;
  return isObject(value) ? `${count} field${count === 1 ? "" : "s"}` : "";
}
