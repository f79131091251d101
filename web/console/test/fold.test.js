import assert from "node:assert/strict";
import { test } from "node:test";

import { Fold, LONGEST_TEXT, openQuestions } from "../src/fold.ts";

let offset = 0;
const event = (type, data, more = {}) => ({ kind: "event", type, data, offset: ++offset, epoch: 1, run: 1, time: "2026-01-31T12:00:00Z", ...more });
const output = (text, stream = "stdout") => () => event("output", { stream, text });
const token = (text, stream = "answer") => () => event("token", { stream, text });
const notice = (type, data) => ({ kind: "notice", type, data });

function rows(...items) {
  offset = 0;
  return new Fold(items.flat().map((item) => (typeof item === "function" ? item() : item))).rows;
}

const lined = (found) => found.filter((row) => row.kind === "line").map((row) => row.spans.map((span) => span.text).join(""));

/** A stream of everything, at random but always the same. */
function world(seed, count) {
  offset = 0;
  let state = seed;
  const random = (below) => (state = (state * 1103515245 + 12345) % 2147483648) % below;
  return Array.from({ length: count }, () => {
    const which = random(9);
    if (which < 3) return output(["a\n", "b", "\rc", "d\ne\n", "\x1b[A", "\x1b[31mf"][random(6)], ["stdout", "stderr"][random(2)])();
    if (which < 5) return token(["x ", "y "][random(2)], ["one", "two"][random(2)])();
    if (which === 5) return event("progress", { done: random(10), total: 10 });
    if (which === 6) return event("text", { stream: "one", text: "x", first: Math.max(1, offset - random(5)), last: offset });
    return event(["log", "metric", "asked", "received", "exited", "restarted"][random(6)], { text: "t" });
  });
}

test("lines of output are joined and cut as they were written", () => {
  assert.deepEqual(lined(rows(output("a"), output("b\nc"), output("\n"), output("d"))), ["ab", "c", "d"]);
  assert.deepEqual(lined(rows(output("10 %"), output("\r20 %"), output("\r30 %\n"))), ["30 %"]);
});

test("a line goes on in its place only if it is drawn over", () => {
  assert.deepEqual(lined(rows(output("a"), () => event("log", { text: "!" }), output("b"))), ["a", "b"]);
  const found = rows(output("1 %"), output("\r2 %"), () => event("log", { text: "!" }), output("\r3 %"));
  assert.deepEqual(found.map((row) => row.kind), ["line", "event"]);
  assert.deepEqual(lined(found), ["3 %"]);
});

test("stdout and stderr have their own lines", () => {
  const found = rows(output("out\n"), output("err\n", "stderr"), output("out\n"));
  assert.deepEqual(found.map((row) => row.stream), ["stdout", "stderr", "stdout"]);
});

test("tokens make one growing row, which text closes", () => {
  const found = rows(token("one "), token("two "), () => event("log", { text: "between" }), token("three"), () => event("text", { stream: "answer", text: "one two three", first: 1, last: 4 }));
  assert.deepEqual(found.map((row) => row.kind), ["text", "event"]);
  assert.deepEqual([found[0].text, found[0].open, found[0].first, found[0].last], ["one two three", false, 1, 5]);
});

test("a text whose beginning was not read is shown whole once it is closed", () => {
  offset = 10;
  const items = [token("three")(), event("text", { stream: "answer", text: "one two three", first: 9, last: 11 })];
  assert.deepEqual(new Fold(items).rows.map((row) => row.text), ["one two three"]);
  assert.deepEqual(rows(() => event("text", { stream: "a", text: "whole", first: 0, last: 0 })).map((row) => row.text), ["whole"]);
});

test("a long text is several rows", () => {
  const piece = "x".repeat(1000);
  const found = rows(Array.from({ length: 20 }, () => token(piece)));
  assert.ok(found.length >= 3 && found.every((row) => row.text.length <= LONGEST_TEXT));
  assert.equal(found.map((row) => row.text).join("").length, 20_000);
  assert.deepEqual(found.map((row) => row.open), [...found.slice(1).map(() => false), true]);
});

test("progress is one row as long as nothing else is said", () => {
  const step = (done) => () => event("progress", { done, total: 9 });
  const found = rows(step(1), step(2), step(3), () => event("log", { text: "!" }), step(4), step(5));
  assert.deepEqual(found.map((row) => [row.type, row.data.done, !!row.stale]), [["progress", 3, true], ["log", undefined, false], ["progress", 5, false]]);
});

test("what is missing, and who took over, is said where it happened", () => {
  const found = rows(() => event("a", null), () => ((offset += 3), event("b", null)), () => event("c", null, { epoch: 2 }));
  assert.deepEqual(found.map((row) => [row.type, row.data]), [["a", null], ["gap", { from: 2, to: 4 }], ["b", null], ["takeover", { epoch: 2, run: 1 }], ["c", null]]);
});

test("a next run is no takeover", () => {
  const found = rows(() => event("exited", {}), notice("takeover", { epoch: 2, run: 2 }), () => event("restarted", {}, { epoch: 2, run: 2 }), () => event("a", {}, { epoch: 3, run: 2 }));
  assert.deepEqual(found.map((row) => row.type), ["exited", "restarted", "takeover", "a"]);
});

test("what a reader says itself is not said twice", () => {
  const found = rows(notice("gap", { from: 1, to: 4 }), notice("gap", { from: 1, to: 4 }), () => ((offset = 4), event("a", null)), notice("caught_up", {}), notice("takeover", { epoch: 2 }), () => event("b", null, { epoch: 2 }), notice("ended", { run: 1 }));
  assert.deepEqual(found.map((row) => row.type), ["gap", "a", "takeover", "b", "ended"]);
  assert.deepEqual(rows(() => event("exited", { status: "failed" }), notice("ended", { run: 1 })).map((row) => row.type), ["exited"]);
});

test("every event is in some row, rows are in order, keys are their own", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const items = world(seed, 120);
    const found = new Fold(items).rows;
    assert.equal(new Set(found.map((row) => row.key)).size, found.length, `keys, seed ${seed}`);
    const shown = new Set(found.flatMap((row) => Array.from({ length: row.last - row.first + 1 }, (_, n) => row.first + n)));
    for (const item of items) assert.ok(shown.has(item.offset), `event ${item.offset}, seed ${seed}`);
    const firsts = found.filter((row) => row.first).map((row) => row.first);
    assert.deepEqual(firsts, [...firsts].sort((a, b) => a - b), `order, seed ${seed}`);
  }
});

test("rows that come one by one are those of all at once", () => {
  const items = world(7, 200);
  const slowly = new Fold();
  for (const item of items) slowly.add(item);
  assert.deepEqual(slowly.rows, new Fold(items).rows);
});

test("garbage is shown, never an error", () => {
  for (const data of [null, 1, "x", [], {}, { text: 5 }, { stream: null, text: null }]) {
    for (const type of ["output", "token", "text", "progress", "asked", "exited", "log", "unheard-of"]) assert.ok(rows(() => event(type, data)).length >= 1, type);
  }
});

test("questions are open until somebody answers or the run ends", () => {
  const asked = (ask) => event("asked", { ask, question: "?" });
  assert.deepEqual([...openQuestions([asked("a"), asked("b"), event("answered", { ask: "a" })]).keys()], ["b"]);
  assert.equal(openQuestions([asked("a"), event("exited", {})]).size, 0);
});

test("a line that is drawn over and over costs no more than what is written", () => {
  const from = performance.now();
  const found = rows(output("a".repeat(3990) + "\rx".repeat(500_000)));
  assert.deepEqual(lined(found), ["x" + "a".repeat(3989)]);
  assert.ok(performance.now() - from < 12_000); // half a minute, where it is shown each time
});
