/** Numbers, times and JSON in a few words. */

/** A length of time in seconds, as people say it: `4s`, `2m 05s`, `3h 12m`, `5d`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${pad(s % 60)}s`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${pad(Math.floor((s % 3600) / 60))}m`;
  return s < 10 * 86_400 ? `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h` : `${Math.floor(s / 86_400)}d`;
}

/** The same in its largest unit, for what need not tick. */
export function roughly(seconds: number): string {
  return seconds < 10 * 60 ? duration(seconds).replace(/m \d+s/, "m") : duration(seconds).split(" ")[0]!;
}

/** The time of day of an event, here: `14:03:27`; another day's with its date. Empty for what is no time. */
export function clock(time: string, now = new Date()): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "";
  const day = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return at.toDateString() === now.toDateString() ? day : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${day}`;
}

/** The same with milliseconds and the date, for a tooltip. */
export function exactly(time: string): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return String(time);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** A number with no more digits than are looked at. */
export function number(value: number): string {
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? group(value) : value.toExponential(3);
  const size = Math.abs(value);
  return size >= 1e6 || (size > 0 && size < 1e-4) ? value.toExponential(3) : String(Number(value.toPrecision(size >= 1000 ? 6 : 4)));
}

export function bytes(count: number): string {
  const units = ["B", "KB", "MB", "GB"];
  let [size, unit] = [count, 0];
  for (; size >= 1000 && unit < 3; unit++) size /= 1000;
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** Any JSON value in one line of at most so many characters: text as it is. */
export function brief(value: unknown, limit = 200): string {
  const text = typeof value === "string" ? value : typeof value === "number" ? number(value) : value === undefined ? "" : shortJson(value, limit);
  const line = visible(text.slice(0, limit + 1)).replace(/\s+/g, " ");
  return line.length > limit ? `${line.slice(0, limit - 1)}…` : line;
}

/** JSON of about so many characters, without writing all of what is huge. */
function shortJson(value: unknown, limit: number): string {
  let left = limit;
  const write = (part: unknown): string => {
    if (left <= 0) return "…";
    if (typeof part !== "object" || part === null) {
      const text = typeof part === "string" ? JSON.stringify(part.slice(0, left)) : String(part);
      left -= text.length;
      return text;
    }
    const open: string[] = [];
    const array = Array.isArray(part);
    for (const [key, item] of Object.entries(part)) {
      if (left <= 0) {
        open.push("…");
        break;
      }
      left -= array ? 2 : key.length + 4;
      open.push(array ? write(item) : `${key}: ${write(item)}`);
    }
    return array ? `[${open.join(", ")}]` : `{ ${open.join(", ")} }`;
  };
  return write(value);
}

// those that turn the order of the text around them, so that it reads otherwise than it is
const TURNING = /[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/g;

/** Text of others, with what would turn its order around made visible. */
export function visible(text: string): string {
  return text.replace(TURNING, (char) => `⟨U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

export function plural(count: number, word: string): string {
  return `${group(count)} ${word}${count === 1 ? "" : "s"}`;
}

function group(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}
