/** What a log is to a chat: pure, so without a server. */

import assert from "node:assert/strict";
import test from "node:test";

import { Turn } from "../dist/turn.js";

let offset = 0;
const event = (type, data = {}, cause = null) => ({ kind: "event", type, data, cause, offset: ++offset, run: 1, epoch: 1, position: offset, time: "", cursor: "" });
const received = (message, more) => event("received", { message, sender: "ann", data: "hi", ...more }, message);
const token = (text, cause = "m") => event("token", { stream: "answer", text }, cause);
const ended = (status, turn, more) => event("turn_ended", { turn, status, ...more }, "m");
const brief = ({ type, delta, errorText, finishReason, id }) => [type, delta ?? errorText ?? finishReason ?? id].filter((part) => part !== undefined).join(" ");

function said(turn, ...items) {
  return items.flatMap((item) => turn.take(item)).map(brief);
}

function begun(options) {
  const turn = new Turn("m", options);
  said(turn, received("m"), event("turn_began", {}, "m"));
  return turn;
}

test("a turn is one message, and what is not of it is not in it", () => {
  const turn = new Turn("m");
  const items = [token("before"), received("m"), event("turn_began", {}, "other"), event("turn_began", {}, "m"), token("a", "other"), token("a"), event("text", { stream: "answer", text: "a" }, "m")];
  assert.deepEqual(said(turn, ...items), ["start", "start-step", "text-start answer", "text-delta a", "text-end answer"]);
  assert.deepEqual(said(turn, ended("completed", turn.number + 1)), []);
  assert.deepEqual(said(turn, ended("completed", turn.number), token("late")), ["finish-step", "finish stop"]);
});

test("a stop says who pressed it, and closes what was open", () => {
  const turn = begun();
  said(turn, token("a"), event("interrupted", { sender: "ben", reason: "enough" }, "command"));
  const chunks = turn.take(ended("interrupted", turn.number));
  assert.deepEqual(chunks.map(brief), ["text-end answer", "finish-step", "abort", "finish interrupted"]);
  assert.deepEqual(chunks.at(-1).messageMetadata.natsproc.stopped, { by: "ben", reason: "enough" });
});

test("text whose pieces were not read is whole, and reasoning is reasoning", () => {
  const turn = begun();
  assert.deepEqual(said(turn, event("text", { stream: "answer", text: "all" }, "m")), ["text-start answer", "text-delta all", "text-end answer"]);
  assert.deepEqual(said(turn, event("token", { stream: "thinking", text: "hm" }, "m")), ["reasoning-start thinking", "reasoning-delta hm"]);
});

test("a reply is the answer where there is no turn, and where a turn said nothing else", () => {
  const reply = () => event("replied", { message: "m", data: "yes" }, "m");
  assert.deepEqual(said(new Turn("m"), received("m"), reply()).slice(2, 4), ["text-start reply", "text-delta yes"]);
  const silent = begun();
  assert.ok(said(silent, reply(), ended("completed", silent.number)).includes("text-delta yes"));
  const loud = begun();
  assert.ok(!said(loud, token("a"), reply(), ended("completed", loud.number)).includes("text-delta yes"));
});

test("a message that lands inside is shown there, or handed over to its own stream", () => {
  const inside = () => received("n", { when: "next" });
  assert.deepEqual(said(begun(), inside()), ["steering-message n"]);
  const first = begun({ handsOverTo: (message) => message === "n" });
  assert.deepEqual(said(first, token("a"), inside(), token("b")).slice(2), ["text-end answer", "finish-step", "finish stop"]);
  const second = new Turn("n");
  assert.deepEqual(said(second, inside(), token("b")), ["start", "start-step", "text-start answer", "text-delta b"]);
  assert.deepEqual(said(second, ended("completed", 1)), ["text-end answer", "finish-step", "finish stop"]);
});

test("another owner begins the answer anew, if there is a state to begin with", () => {
  const saved = begun();
  said(saved, token("a"));
  assert.deepEqual(said(saved, event("recovered", { checkpoint: 1 }), event("turn_began", {}, "m"), token("b")), ["reset-step", "text-start answer", "text-delta b"]);
  const lost = begun();
  assert.deepEqual(said(lost, event("recovered", {})), ["error the process was lost, and this answer with it"]);
  const waiting = new Turn("m");
  assert.deepEqual(said(waiting, event("recovered", {}), received("m"), event("turn_began", {}, "m")), ["start", "start-step"]);
});

test("what fails is an error, and nothing comes behind", () => {
  for (const last of [(turn) => ended("failed", turn.number, { error: "no" }), () => event("exited", { status: "failed" }), () => ({ kind: "notice", type: "ended", data: { status: "failed" } })]) {
    const turn = begun();
    assert.match(said(turn, last(turn), token("late")).join(), /^error (no|the process has ended \(failed\))$/);
  }
  assert.deepEqual(said(new Turn("m"), received("m", { refused: "not you" })), ["error the message was not taken: not you"]);
});

test("tools, questions and gaps", () => {
  const turn = begun();
  const call = (id) => event("tool_call", { id, name: "f", arguments: {} }, "m");
  const result = (id, status) => event("tool_result", { id, name: "f", result: "r", status }, "m");
  assert.deepEqual(said(turn, call("1"), call("2"), result("1", "success"), result("2", "error"), result("3", "success")), ["tool-input-available", "tool-input-available", "tool-output-available", "tool-output-error r"]);
  const [asked, answered] = [event("asked", { ask: "a", question: "?" }, "m"), event("answered", { ask: "a", value: "yes", sender: "ben" }, "c")].flatMap((each) => turn.take(each));
  assert.deepEqual([asked.data.open, answered.id, answered.data], [true, "a", { ask: "a", question: "?", open: false, answer: "yes", by: "ben" }]);
  assert.deepEqual(said(turn, { kind: "notice", type: "gap", data: { from: 1, to: 2 } }), ["data-gap"]);
});

test("a turn that says of no message answers the one that was taken before it", () => {
  assert.deepEqual(said(new Turn("m"), event("turn_began"), received("m"), event("turn_began"), token("a", null)).slice(2), ["text-start answer", "text-delta a"]);
});
