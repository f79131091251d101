import assert from "node:assert/strict";
import { test } from "node:test";

import { indexAt, Metrics, timesOf } from "../src/reel.ts";

test("times rise, whatever clocks did", () => {
  const at = (second) => ({ time: `2026-01-01T00:00:0${second}Z` });
  assert.deepEqual(timesOf([at(1), at(3), at(2), { time: "nonsense" }, {}, at(9)]), [0, 2, 2, 2, 2, 8]);
  assert.deepEqual(timesOf([]), []);
});

test("what was there at a moment", () => {
  const times = [0, 2, 2, 8];
  assert.deepEqual([-1, 0, 1, 2, 7, 8, 9].map((moment) => indexAt(times, moment)), [0, 1, 1, 3, 3, 4, 4]);
});

test("metrics are kept by name, and thinned out evenly", () => {
  const metrics = new Metrics(100, 2);
  for (let n = 0; n < 1000; n++) metrics.add(new Date(n * 1000).toISOString(), { loss: n, text: "x", bad: NaN, accuracy: n / 2, third: 1 });
  const [loss, accuracy, ...others] = metrics.all;
  assert.deepEqual([loss.name, accuracy.name, others], ["loss", "accuracy", []]);
  assert.ok(loss.values.length < 100 && loss.values.length >= 50);
  assert.deepEqual(loss.values, [...loss.values].sort((a, b) => a - b));
  assert.deepEqual(loss.times, loss.values);
  metrics.add("nonsense", { loss: 1 });
  metrics.add("2026-01-01T00:00:00Z", null);
});

test("no line leads from one run to the next", () => {
  const metrics = new Metrics();
  for (const [second, run] of [[1, 1], [2, 1], [5, 2], [6, 2]]) metrics.add(`2026-01-01T00:00:0${second}Z`, { loss: second }, run);
  const [{ times, values }] = metrics.all;
  assert.deepEqual(values, [1, 2, null, 5, 6]);
  assert.equal(times.length, values.length);
  assert.deepEqual(times, [...times].sort());
});
