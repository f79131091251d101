/**
 * What a terminal would show of a program's output, as lines of coloured spans: colours, carriage returns, backspaces,
 * erasures and moves of the cursor within what was just written. Everything else that a terminal obeys is left out.
 */

/** How a piece of text looks. Colours are 0–255, or `#rrggbb`; -1 is the page's own. */
export interface Style {
  readonly fg: number | string;
  readonly bg: number | string;
  /** of the letters b(old) d(im) i(talic) u(nderline) s(truck) v (reversed) */
  readonly marks: string;
}

export interface Span {
  readonly text: string;
  readonly style: Style;
}

export const PLAIN: Style = { fg: -1, bg: -1, marks: "" };
export const WIDEST = 4000; // characters; what is longer goes on in another line

// one escape sequence, or one control character
const CONTROL = /\x1b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[PX^_][^\x1b]*(?:\x1b\\|$)|[ -/]*[0-~])|\r+\n?|[\x00-\x0c\x0e-\x1f\x7f-\x9f]/;
const UNFINISHED = /\x1b(?:\[[0-9;:?<=>]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)?$/;
const LONGEST_ESCAPE = 256;

/** One line of a screen, drawn and drawn over. */
export class Line {
  #cells: string[] = [];
  #styles: Style[] = [];
  #spans: Span[] | null = [];
  redrawn = false;

  get length(): number {
    return this.#cells.length;
  }

  /** Put text at a column; returns the column behind it. */
  put(at: number, text: string, style: Style): number {
    this.#spans = null;
    while (this.#cells.length < at) this.#push(" ", PLAIN);
    for (const char of text) {
      if (at < this.#cells.length) {
        this.#cells[at] = char;
        this.#styles[at] = style;
      } else this.#push(char, style);
      at++;
    }
    return at;
  }

  /** Erase columns from `from` up to `to`. */
  erase(from: number, to: number): void {
    this.#spans = null;
    if (to >= this.#cells.length) {
      this.#cells.length = Math.min(this.#cells.length, from);
      this.#styles.length = this.#cells.length;
      return;
    }
    for (let at = from; at < to; at++) {
      this.#cells[at] = " ";
      this.#styles[at] = PLAIN;
    }
  }

  get spans(): readonly Span[] {
    return (this.#spans ??= joined(this.#cells, this.#styles));
  }

  get text(): string {
    return this.#cells.join("");
  }

  #push(char: string, style: Style): void {
    this.#cells.push(char);
    this.#styles.push(style);
  }
}

function joined(cells: readonly string[], styles: readonly Style[]): Span[] {
  const spans: Span[] = [];
  for (let [at, from] = [1, 0]; from < cells.length; at++) {
    if (at < cells.length && styles[at] === styles[from]) continue;
    spans.push({ text: cells.slice(from, at).join(""), style: styles[from]! });
    from = at;
  }
  return spans;
}

/** What is told of lines: one begins, or one that was there looks otherwise. Lines are counted from the first on. */
export interface Paper {
  begin(line: Line): void;
  change(line: Line): void;
  /** the line so many above the last one of what was written without a break; undefined if there is none */
  above(count: number): Line | undefined;
}

/** The pen of one stream of output: text goes in, lines come out on a `Paper`. */
export class Pen {
  #line: Line | null = null;
  #up = 0; // lines between the pen and the last one
  #column = 0;
  #style = PLAIN;
  #blanks = 16 * WIDEST; // that moves may still leave behind them
  #rest = ""; // an escape sequence that is not complete

  /** Whether the line it is on goes on with what is written next. */
  get line(): Line | null {
    return this.#line;
  }

  /** Whatever is written next begins a line. */
  lift(): void {
    this.#line = null;
    this.#up = 0;
    this.#column = 0;
  }

  write(text: string, paper: Paper): void {
    let left = this.#rest + text;
    this.#rest = "";
    const cut = UNFINISHED.exec(left.slice(-LONGEST_ESCAPE));
    if (cut) {
      this.#rest = cut[0];
      left = left.slice(0, left.length - cut[0].length);
    }
    while (left) {
      const found = CONTROL.exec(left);
      const upTo = found ? found.index : left.length;
      if (upTo) this.#draw(left.slice(0, upTo), paper);
      if (!found) return;
      this.#obey(found, paper);
      left = left.slice(upTo + found[0].length);
    }
  }

  #draw(text: string, paper: Paper): void {
    for (let from = 0; from < text.length; ) {
      const line = this.#here(paper);
      const blank = Math.max(0, this.#column - line.length);
      if (blank > this.#blanks) this.#column = line.length;
      else this.#blanks -= blank;
      const room = Math.max(1, WIDEST - this.#column);
      const part = text.slice(from, from + room);
      this.#column = line.put(this.#column, part, this.#style);
      paper.change(line);
      from += part.length;
      this.#blanks = Math.min(16 * WIDEST, this.#blanks + 16 * part.length);
      if (this.#column >= WIDEST) this.#newLine(paper);
    }
  }

  #here(paper: Paper): Line {
    if (!this.#line) {
      this.#line = new Line();
      paper.begin(this.#line);
    }
    return this.#line;
  }

  #newLine(paper: Paper): void {
    this.#here(paper);
    this.#column = 0;
    this.#line = this.#up > 0 ? (paper.above(--this.#up) ?? null) : null;
  }

  #obey([all, parameters = "", final = ""]: RegExpExecArray, paper: Paper): void {
    if (all.endsWith("\n")) return this.#newLine(paper);
    if (all[0] === "\r") {
      if (this.#line) this.#line.redrawn = true;
      this.#column = 0;
    } else if (all === "\b") this.#column = Math.max(0, this.#column - 1);
    else if (all === "\t") this.#column = Math.min(WIDEST - 1, this.#column + 8 - (this.#column % 8));
    else if (final === "m" && !/[?<=>]/.test(parameters)) this.#style = restyled(this.#style, parameters);
    else if (final) this.#move(final, parameters, paper);
  }

  #move(final: string, parameters: string, paper: Paper): void {
    const count = Math.min(WIDEST, parseInt(parameters, 10) || 0);
    if (final === "C") this.#column = Math.min(WIDEST - 1, this.#column + (count || 1));
    else if (final === "D") this.#column = Math.max(0, this.#column - (count || 1));
    else if (final === "G") this.#column = Math.min(WIDEST - 1, Math.max(0, (count || 1) - 1));
    else if (final === "K") this.#eraseLine(count, paper);
    else if (final === "A" || final === "F") this.#climb(count || 1, final === "F", paper);
    else if (final === "B" || final === "E") this.#climb(-(count || 1), final === "E", paper);
  }

  #eraseLine(what: number, paper: Paper): void {
    const line = this.#line;
    if (!line) return;
    line.redrawn = true;
    line.erase(what === 0 ? this.#column : 0, what === 1 ? this.#column + 1 : Infinity);
    paper.change(line);
  }

  #climb(by: number, home: boolean, paper: Paper): void {
    this.#here(paper);
    let up = Math.max(0, this.#up + by);
    while (up > 0 && !paper.above(up)) up--;
    this.#up = up;
    this.#line = paper.above(up) ?? this.#line;
    if (this.#line) this.#line.redrawn = true;
    if (home) this.#column = 0;
  }
}

const known = new Map<string, Style>();

/** The one object for a style, so that equal ones are the same. */
function style(fg: number | string, bg: number | string, marks: string): Style {
  if (fg === -1 && bg === -1 && !marks) return PLAIN;
  const key = `${fg} ${bg} ${marks}`;
  let found = known.get(key);
  if (!found) {
    if (known.size > 5000) known.clear();
    known.set(key, (found = { fg, bg, marks }));
  }
  return found;
}

const ON: Readonly<Record<number, string>> = { 1: "b", 2: "d", 3: "i", 4: "u", 7: "v", 9: "s" };
const OFF: Readonly<Record<number, string>> = { 21: "u", 22: "bd", 23: "i", 24: "u", 27: "v", 29: "s" };

/** A style after the parameters of `ESC [ … m`. */
export function restyled(before: Style, parameters: string): Style {
  let { fg, bg, marks } = before;
  const codes = parameters.split(/[;:]/).map((code) => parseInt(code, 10) || 0);
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at]!;
    if (code === 0) [fg, bg, marks] = [-1, -1, ""];
    else if (ON[code]) marks = [...new Set(marks + ON[code])].sort().join("");
    else if (OFF[code]) marks = [...marks].filter((mark) => !OFF[code]!.includes(mark)).join("");
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 39) fg = -1;
    else if (code === 49) bg = -1;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes, at + 1);
      at += used;
      if (code === 38) fg = colour;
      else bg = colour;
    }
  }
  return style(fg, bg, marks);
}

/** The colour behind `38` or `48`, and how many codes it takes. */
function extended(codes: readonly number[], at: number): [number | string, number] {
  const byte = (value = 0): number => Math.min(255, Math.max(0, value));
  if (codes[at] === 5) return [byte(codes[at + 1]), 2];
  if (codes[at] !== 2) return [-1, 0];
  const parts = [1, 2, 3].map((more) => byte(codes[at + more]).toString(16).padStart(2, "0"));
  return [`#${parts.join("")}`, 4];
}

/** A colour of the 256 above the first sixteen, as `#rrggbb`. */
export function paletteColour(index: number): string {
  const level = (value: number): string => value.toString(16).padStart(2, "0");
  if (index >= 232) return `#${level(8 + (index - 232) * 10).repeat(3)}`;
  const steps = [0, 95, 135, 175, 215, 255];
  const cube = index - 16;
  return `#${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((step) => level(steps[step]!)).join("")}`;
}
