/** How the element looks. Pages change it by the custom properties, or by the parts. */

const DARK = `
  --bg: var(--natsproc-bg, #14171c); --fg: var(--natsproc-fg, #d9dee7); --dim: var(--natsproc-dim, #97a1b0);
  --accent: var(--natsproc-accent, #6cb6ff); --good: var(--natsproc-good, #57c785); --bad: var(--natsproc-bad, #ff8f86);
  --warn: var(--natsproc-warn, #e3b341); --line: var(--natsproc-line, #2b313b); color-scheme: dark;
  ${palette("#7d8590 #ff8f86 #57c785 #e3b341 #6cb6ff #d2a8ff #56d4dd #c9d1d9 #97a1b0 #ffb1aa #7ee2a8 #f0cf7a #96ccff #e2c5ff #8be9f0 #ffffff")}`;

const LIGHT = `
  --bg: var(--natsproc-bg, #ffffff); --fg: var(--natsproc-fg, #1f2328); --dim: var(--natsproc-dim, #5a636e);
  --accent: var(--natsproc-accent, #0860ca); --good: var(--natsproc-good, #13713a); --bad: var(--natsproc-bad, #c21c26);
  --warn: var(--natsproc-warn, #855a00); --line: var(--natsproc-line, #d8dde4); color-scheme: light;
  ${palette("#1f2328 #c21c26 #13713a #855a00 #0860ca #7d3bc4 #10697a #5a636e #57606a #a40e26 #0d5c2e #6f4a00 #0550ae #6639ba #0b5563 #57606a")}`;

function palette(colours: string): string {
  return colours.split(" ").map((colour, n) => `--ansi-${n}: var(--natsproc-ansi-${n}, ${colour});`).join(" ");
}

const CSS = `
:host { ${LIGHT} display: flex; flex-direction: column; position: relative; height: 24em; min-height: 4em; overflow: hidden;
  background: var(--bg); color: var(--fg); border: 1px solid var(--line); border-radius: 6px;
  font: var(--natsproc-font, 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace); }
@media (prefers-color-scheme: dark) { :host { ${DARK} } }
:host([theme="light"]) { ${LIGHT} }
:host([theme="dark"]) { ${DARK} }
:host([hidden]) { display: none; }
.rows { flex: 1; min-height: 0; overflow: auto; padding: 6px 10px; overflow-anchor: auto; }
.rows:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.row { white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.5em; unicode-bidi: plaintext; }
.time, .type, .mild { color: var(--dim); }
.time, .type { margin-inline-end: 1ch; }
.type { display: inline-block; min-width: 10ch; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); } .accent { color: var(--accent); }
.notice { border-inline-start: 3px solid currentColor; padding-inline-start: 8px; margin: 2px 0; }
progress { accent-color: var(--accent); width: 16ch; height: 0.8em; vertical-align: baseline; margin-inline-end: 1ch; }
.b { font-weight: bold; } .d { opacity: 0.7; } .i { font-style: italic; } .u { text-decoration: underline; } .s { text-decoration: line-through; }
.status { padding: 3px 10px; border-block-start: 1px solid var(--line); color: var(--dim); font-size: 0.92em; }
.status:empty { display: none; }
button { position: absolute; inset-inline-end: 16px; inset-block-end: 36px; font: inherit; color: var(--bg); background: var(--accent);
  border: 0; border-radius: 99px; padding: 2px 12px; cursor: pointer; }
button:focus-visible { outline: 2px solid var(--fg); outline-offset: 2px; }
button[hidden] { display: none; }
`;

let sheet: CSSStyleSheet | undefined;

/** One sheet for all elements of a page; made by script, so that a page's policy for styles need not allow it. */
export function styles(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
}
