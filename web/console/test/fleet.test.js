import assert from "node:assert/strict";
import { test } from "node:test";

import { asTree, counts, EVERYTHING, parentKey, select } from "../src/filter.ts";
import { parseFragment, parsePasted, placeFragment } from "../src/fragment.ts";
import { rightsIn } from "../src/rights.ts";
import { brief, bytes, clock, duration, number, roughly, visible } from "../src/words.ts";

const member = (id, more = {}) => ({
  ...{ key: `default/${id}`, namespace: "default", id, kind: "make", node: "laptop", state: "running", started: "2026-01-01T00:00:00Z" },
  ...{ ended: "", labels: {}, parent: "", title: "", asks: [], ...more },
});
const ids = (members) => members.map(({ id }) => id);

test("who waits for a person comes first, what has ended last", () => {
  const fleet = [
    member("old", { ended: "2026-01-02T00:00:00Z", state: "failed" }),
    member("older", { ended: "2026-01-01T00:00:00Z", state: "completed" }),
    member("a", { started: "2026-01-01T00:00:00Z" }),
    member("b", { started: "2026-01-02T00:00:00Z" }),
    member("asks", { asks: [{}], state: "waiting" }),
  ];
  assert.deepEqual(ids(select(fleet, EVERYTHING)), ["asks", "b", "a", "old", "older"]);
  assert.deepEqual(counts(fleet), { all: 5, waiting: 1, running: 2, paused: 0, unreachable: 0, ended: 2 });
});

test("every word has to be found somewhere", () => {
  const fleet = [member("build", { title: "make -j4" }), member("train", { labels: { user: "ann" } }), member("gone", { state: "unreachable" })];
  const found = (text, more = {}) => ids(select(fleet, { ...EVERYTHING, text, ...more }));
  assert.deepEqual(found("J4"), ["build"]);
  assert.deepEqual(found("user=ann train"), ["train"]);
  assert.deepEqual(found("build train"), []);
  assert.deepEqual(found("", { group: "unreachable" }), ["gone"]);
  assert.deepEqual(found("", { namespace: "other" }), []);
  assert.equal(found("", { kind: "make" }).length, 3);
});

test("children stand behind their parents, also in circles", () => {
  const fleet = [member("child", { parent: "default/root" }), member("root"), member("grandchild", { parent: "child" }), member("lost", { parent: "nobody" })];
  assert.deepEqual(asTree(fleet).map(({ member: { id }, depth, children }) => [id, depth, children]), [
    ["root", 0, 1],
    ["child", 1, 1],
    ["grandchild", 2, 0],
    ["lost", 0, 0],
  ]);
  assert.equal(asTree([member("a", { parent: "b" }), member("b", { parent: "a" })]).length, 2);
  assert.equal(parentKey(member("x", { parent: "ns/y" })), "ns/y");
});

test("a fragment says as whom, and what is looked at", () => {
  assert.deepEqual(parseFragment("#c=natsproc_abc-_1&p=ns/id"), { access: { line: "natsproc_abc-_1" }, process: "ns/id", view: "" });
  assert.deepEqual(parseFragment("#p=build&v=metrics"), { access: null, process: "default/build", view: "metrics" });
  assert.deepEqual(parseFragment("#s=ws://localhost:9222&as=ann").access, { server: "ws://localhost:9222", sender: "ann" });
  const key = `SU${"A".repeat(56)}`;
  assert.deepEqual(parseFragment(`#k=${key}&p=ns/id`), { access: { key }, process: "ns/id", view: "" });
  for (const bad of ["#k=evil", "#c=evil", "#s=http://x", "#s=javascript:alert(1)", "", "#"]) assert.equal(parseFragment(bad).access, null, bad);
  for (const bad of ["#p=../x", "#p=a/b/c", "#p=<b>", "#p=a.b"]) assert.equal(parseFragment(bad).process, "", bad);
  assert.equal(placeFragment("ns/id"), "#p=ns/id");
  assert.deepEqual(parseFragment(placeFragment("ns/id", "tree")), { access: null, process: "ns/id", view: "tree" });
});

test("a pasted link is as good as a pasted line", () => {
  assert.deepEqual(parsePasted("  natsproc_abc\n"), { line: "natsproc_abc" });
  assert.deepEqual(parsePasted("http://localhost:9223/#c=natsproc_abc&p=x"), { line: "natsproc_abc" });
  assert.equal(parsePasted("hello"), null);
});

test("what a credential may, by its own words", () => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const line = (allow, more = {}) => `natsproc_${encode({ jwt: `x.${encode({ name: "ann", nats: { pub: { allow } }, ...more })}.y`, seed: "S" })}`;
  const watch = rightsIn(line(["proc.default.build.history.ann"], { exp: 2_000_000_000 }));
  assert.equal(watch.expires, 2_000_000_000_000);
  assert.deepEqual([watch.may("watch", "default/build"), watch.may("watch", "default/other"), watch.may("control", "default/build")], [true, false, false]);
  const control = rightsIn(line(["proc.*.*.control.ann"]));
  assert.deepEqual([control.may("control", "any/thing"), control.may("send", "any/thing")], [true, false]);
  assert.equal(rightsIn(line([">"])).may("send", "a/b"), true);
  assert.equal(rightsIn("natsproc_nonsense"), null);
});

test("numbers and times in few words", () => {
  assert.deepEqual([0, 59, 61, 3720, 90_000, 9e5, 1e7].map(duration), ["0s", "59s", "1m 01s", "1h 02m", "1d 1h", "10d", "115d"]);
  assert.deepEqual([5, 65, 4000, 90_000].map(roughly), ["5s", "1m", "1h", "1d"]);
  assert.deepEqual([1234567, 0.123456, 1e-7, 12.5].map(number), ["1\u202f234\u202f567", "0.1235", "1.000e-7", "12.5"]);
  assert.deepEqual([12, 1200, 184_320_411].map(bytes), ["12 B", "1.2 KB", "184 MB"]);
  assert.equal(clock("nonsense"), "");
  assert.equal(clock(new Date(2026, 0, 1, 9, 5, 3).toISOString(), new Date(2026, 0, 1)), "09:05:03");
});

test("what is huge or turns text around is shown harmlessly", () => {
  const huge = { list: Array.from({ length: 1e5 }, (_, n) => n), text: "x".repeat(1e6) };
  assert.ok(brief(huge, 100).length <= 100);
  assert.equal(visible("a\u202eb"), "a⟨U+202E⟩b");
  assert.equal(brief("one\ntwo"), "one two");
});
