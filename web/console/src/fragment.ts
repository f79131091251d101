/** What the address bar's fragment says: which server, as whom, and what is to be seen. No server ever sees it. */

/** How to connect: by the one line that `natsproc grant` prints, by its key, or to a server that asks for none. */
export type Access = { readonly line: string } | { readonly key: string } | { readonly server: string; readonly sender: string };

export interface Fragment {
  readonly access: Access | null;
  /** `namespace/id`; empty for the fleet */
  readonly process: string;
  /** which face of a process: its timeline unless said */
  readonly view: string;
}

const LINE = /^natsproc_[A-Za-z0-9_-]+$/;
const SEED = /^SU[A-Z2-7]{56}$/;
const TOKEN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}";
const ADDRESS = new RegExp(`^(?:${TOKEN}/)?${TOKEN}$`);

/** Read a fragment, with or without its `#`; what makes no sense is left out. */
export function parseFragment(text: string): Fragment {
  const fields = new URLSearchParams(text.replace(/^#/, ""));
  const process = fields.get("p") ?? "";
  return {
    access: accessIn(fields),
    process: ADDRESS.test(process) ? (process.includes("/") ? process : `default/${process}`) : "",
    view: fields.get("v") ?? "",
  };
}

function accessIn(fields: URLSearchParams): Access | null {
  const line = (fields.get("c") ?? "").trim();
  if (line) return LINE.test(line) ? { line } : null;
  const key = (fields.get("k") ?? "").trim();
  if (key) return SEED.test(key) ? { key } : null;
  const server = fields.get("s") ?? "";
  if (!/^wss?:\/\//.test(server)) return null;
  return { server, sender: fields.get("as") || "anonymous" };
}

/** What somebody pasted: a line, or an address that has one in its fragment. Null if it is neither. */
export function parsePasted(text: string): Access | null {
  const trimmed = text.trim();
  if (LINE.test(trimmed)) return { line: trimmed };
  const at = trimmed.indexOf("#");
  return at < 0 ? null : parseFragment(trimmed.slice(at)).access;
}

/** The fragment of a place in the console, which names no credential. */
export function placeFragment(process: string, view = ""): string {
  if (!process) return "#";
  return `#p=${process}${view ? `&v=${encodeURIComponent(view)}` : ""}`;
}
