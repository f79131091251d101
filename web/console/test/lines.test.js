import assert from "node:assert/strict";
import { test } from "node:test";

import { paletteColour, Pen, PLAIN, restyled, WIDEST } from "../src/lines.ts";

/** What a terminal would show: the text of each line. */
function drawn(...pieces) {
  return screen(...pieces).map((line) => line.text);
}

function screen(...pieces) {
  const lines = [];
  const paper = { begin: (line) => lines.push(line), change() {}, above: (count) => lines.at(-1 - count) };
  const pen = new Pen();
  for (const piece of pieces) pen.write(piece, paper);
  return lines;
}

test("lines end at newlines, wherever the pieces were cut", () => {
  const whole = "one\r\ntwo\n\nfour";
  for (let at = 0; at <= whole.length; at++) assert.deepEqual(drawn(whole.slice(0, at), whole.slice(at)), ["one", "two", "", "four"]);
});

test("a carriage return draws over what was there", () => {
  assert.deepEqual(drawn("10 %\r", "100 %\n", "done"), ["100 %", "done"]);
  assert.deepEqual(drawn("abcdef\rXY"), ["XYcdef"]);
  assert.deepEqual(drawn("abcdef\r\x1b[KXY"), ["XY"]);
  assert.deepEqual(drawn("abc\b\bX"), ["aXc"]);
  assert.deepEqual(drawn("a\tb"), ["a       b"]);
});

test("several lines are drawn over in their place", () => {
  assert.deepEqual(drawn("a: 1\nb: 1\n", "\x1b[2A", "a: 2\nb: 2\n", "after"), ["a: 2", "b: 2", "after"]);
  assert.deepEqual(drawn("a\n", "\x1b[99A", "b"), ["b", ""]);
});

test("colours go to the text behind them, whatever the cut", () => {
  const whole = "a\x1b[1;31mb\x1b[38;5;208mc\x1b[48;2;1;2;3md\x1b[0me";
  for (let at = 0; at <= whole.length; at++) {
    const [line] = screen(whole.slice(0, at), whole.slice(at));
    assert.deepEqual(
      line.spans.map(({ text, style }) => [text, style.fg, style.bg, style.marks]),
      [["a", -1, -1, ""], ["b", 1, -1, "b"], ["c", 208, -1, "b"], ["d", 208, "#010203", "b"], ["e", -1, -1, ""]],
    );
  }
});

test("styles add up and are taken back", () => {
  assert.equal(restyled(restyled(PLAIN, "1"), "0"), PLAIN);
  assert.equal(restyled(restyled(PLAIN, "2;1"), "22"), PLAIN);
  assert.equal(restyled(restyled(PLAIN, "31"), "39"), PLAIN);
  assert.equal(restyled(PLAIN, "92").fg, 10);
  assert.equal(restyled(PLAIN, ""), PLAIN);
  assert.equal(paletteColour(16), "#000000");
  assert.equal(paletteColour(231), "#ffffff");
  assert.equal(paletteColour(244), "#808080");
});

test("what a terminal would obey otherwise is left out", () => {
  assert.deepEqual(drawn("\x1b]0;title\x07a\x1b[2Jb\x1b[?25lc\x1b(Bd\x07e\x1bPq#0\x1b\\f\x9bg"), ["abcdefg"]);
  assert.deepEqual(drawn("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\"), ["link"]);
});

test("a line without an end is cut into several", () => {
  assert.deepEqual(drawn("x".repeat(2 * WIDEST + 1)).map((line) => line.length), [WIDEST, WIDEST, 1]);
  assert.equal(drawn("\x1b[999999999C", "x")[0].length, WIDEST);
});

test("what is hostile costs no more time and room than its length", () => {
  const from = performance.now();
  assert.deepEqual(drawn("a" + "\r".repeat(1_000_000) + "b"), ["b"]);
  assert.ok(performance.now() - from < 20_000); // hours, where each one looks for the end of all of them
  assert.equal(drawn("\t".repeat(100_000) + "b")[0].length, WIDEST);
  const size = drawn("\x1b[3000Cx\n".repeat(2000)).join("").length;
  assert.ok(size < 200_000, `${size} characters`);
});
