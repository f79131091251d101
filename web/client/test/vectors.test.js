// The vectors in tests/vectors, which clients in every language have to pass.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Parts, unbundle } from "../dist/bundle.js";
import { Compact } from "../dist/compact.js";
import { BadName, BadPayload } from "../dist/errors.js";
import { gateSubject, isStored } from "../dist/gate.js";
import { cursorText, eventOf, notice, parseCursor, parseEntry, parseReceipt, UNREADABLE } from "../dist/messages.js";
import { Address, checkName, Names, replyIsClients } from "../dist/names.js";
import { checkLog, Fold } from "../dist/ownership.js";
import { Reader } from "../dist/reader.js";
import { inTheMiddle } from "../dist/start.js";
import { parseClaim, parseRecord, toCut } from "../dist/records.js";

const FOLDER = process.env.VECTORS ?? new URL("../../../tests/vectors", import.meta.url).pathname;
const load = (name) => JSON.parse(readFileSync(`${FOLDER}/${name}.json`, "utf8"));
const bytes = (text) => new TextEncoder().encode(text);
const plain = (value) => JSON.parse(JSON.stringify(value));

const STORES = { event_stream: "EVENTS", inbox_stream: "INBOX", claims: "CLAIMS", registry: "REGISTRY", ended: "ENDED", leases: "LEASES" };

function entry([epoch, offset, run = 1, type = "output"]) {
  if (!epoch) return UNREADABLE;
  const [kind, data] = offset ? [type, null] : ["mark", { node: `node-${epoch}` }];
  return { epoch, run, offset, time: "", type: kind, data, cause: null };
}

function started({ cuts = [], cursor, ...others }) {
  const [position, epoch, run, offset] = cursor ?? [];
  return { ...others, cuts: cuts.map(toCut), ...(cursor && { cursor: { position, epoch, run, offset } }) };
}

test("names, addresses, subjects, streams and replies", () => {
  const vectors = load("names");
  for (const name of vectors.names.valid) assert.equal(checkName(name), name);
  for (const name of vectors.names.invalid) assert.throws(() => checkName(name), BadName, name);
  for (const { text, namespace, id, written } of vectors.addresses.valid) {
    const address = Address.parse(text);
    assert.deepEqual([address.namespace, address.id, String(address)], [namespace, id, written]);
  }
  for (const text of vectors.addresses.invalid) assert.throws(() => Address.parse(text), BadName, text);
  for (const { prefix, address, sender, key, ...subjects } of vectors.subjects) {
    const [names, process] = [new Names(prefix), Address.parse(address)];
    assert.equal(process.key, key);
    for (const kind of ["events", "live", "record"]) assert.equal(names.of(process, kind), subjects[kind]);
    for (const kind of ["inbox", "delivered", "control"]) assert.equal(names.by(process, kind, sender), subjects[kind]);
  }
  for (const { prefix, ...stores } of vectors.meshes) {
    const names = new Names(prefix);
    for (const [name, store] of Object.entries(stores)) assert.equal(names.store(STORES[name]), store);
  }
  const { sender, answered, refused } = vectors.replies;
  assert.ok(answered.every((reply) => replyIsClients(reply, sender)));
  for (const reply of refused) assert.ok(!replyIsClients(reply, sender), reply);
});

test("cursors", () => {
  const vectors = load("cursors");
  for (const { text, position, epoch, run, offset } of vectors.valid) {
    const cursor = { position, epoch, run, offset };
    assert.deepEqual(parseCursor(text), cursor);
    assert.equal(cursorText(cursor), text);
  }
  for (const text of vectors.invalid) assert.throws(() => parseCursor(text), BadPayload, text);
});

test("cursors that cannot be of a log", () => {
  for (const { cursor: [position, epoch, run, offset], claim, last, fits } of load("cursors").logs) {
    const check = () => checkLog({ position, epoch, run, offset }, claim && parseClaim(bytes(JSON.stringify(claim)), 1), last);
    if (fits) check();
    else assert.throws(check, BadPayload, JSON.stringify(claim));
  }
});

test("entries of a log, and the lines that are printed of them", () => {
  const vectors = load("events");
  for (const { payload, base64, entry } of [...vectors.entries, ...load("payloads").entries]) {
    const raw = base64 === undefined ? bytes(payload) : Buffer.from(base64, "base64");
    const found = parseEntry(raw);
    assert.deepEqual(found === UNREADABLE ? null : plain(found), entry, payload ?? base64);
  }
  for (const { position, payload, line } of vectors.lines) {
    const { kind, cause, position: _, ...event } = plain(eventOf(parseEntry(bytes(payload)), position));
    assert.deepEqual({ ...event, ...(cause === null ? {} : { cause }) }, line);
  }
});

function follow(fold, step, name) {
  if (!Array.isArray(step)) return fold.refresh(step.refresh.map(toCut), step.trimmed ?? false);
  const [position, what, verdict] = step;
  return assert.equal(fold.feed(position, entry(what)), verdict, `${name}: ${JSON.stringify(step)}`);
}

for (const file of ["fold", "folds"]) {
  test(`which entries count: ${file}.json`, () => {
    for (const { name, start, steps, missing, next, cuts } of load(file).cases) {
      const { cuts: known, ...where } = started(start);
      const fold = new Fold(known, where);
      for (const step of steps) follow(fold, step, name);
      assert.deepEqual(fold.missing, missing ?? null, name);
      assert.equal(fold.nextOffset, next, name);
      if (cuts) assert.deepEqual(fold.cuts.map((c) => [c.epoch, c.run, c.offset, c.position]), cuts, name);
    }
  });
}

function act(reader, step) {
  const [[name, given]] = Object.entries(step);
  switch (name) {
    case "start":
      return reader.start();
    case "history":
      return reader.history(given[0], entry(given[1]));
    case "history_end":
      return reader.historyEnd();
    case "history_failed":
      return reader.historyFailed();
    case "live":
      return reader.live(given[0], given[1], entry(given[2]));
    case "first":
      return reader.first(given[0], given[1].map(toCut), given[2]);
    case "last":
      return reader.last(given);
    case "reconnected":
      return reader.reconnected();
    case "overflowed":
      return reader.overflowed();
    default:
      throw new Error(name);
  }
}

function written(action) {
  if (action.kind === "event") return ["show", action.offset];
  if (action.kind === "notice") return ["say", action.type, action.data];
  return action.kind === "read" ? ["read", action.after] : [action.kind];
}

for (const file of ["reader", "readers"]) {
  test(`the reader as a state machine: ${file}.json`, () => {
    for (const { name, start, steps, refused } of load(file).cases) {
      if (refused) {
        assert.throws(() => new Reader(started(start)), BadPayload, name);
        continue;
      }
      const reader = new Reader(started(start));
      for (const { then, ...step } of steps) {
        const about = `${name}: ${JSON.stringify(step)}`;
        if (then[0]?.[0] === "refuse") assert.throws(() => act(reader, step), BadPayload, about);
        else assert.deepEqual(act(reader, step).map(written), then, about);
      }
    }
  });
}

const second = (position) => new Date(position * 1000).toISOString(); // in which it was stored

/** Reads of a log in memory. */
function historyOf(stored) {
  const behind = (after, upto = Infinity) => stored.filter(({ position }) => position > after && position <= upto);
  return {
    first: async (_, { seq, start_time: time }) => behind((seq ?? Date.parse(time) / 1000) - 1)[0] ?? null,
    last: async () => stored.at(-1),
    now: async () => second(stored.at(-1).position),
    async *read(_, after, upto) {
      for (let rest = behind(after, upto); rest.length; rest = rest.slice(7)) yield rest.slice(0, 7);
    },
  };
}

/** The offsets that a reader shows of a log that stays as it is. */
function shownOf(reader, stored, cuts) {
  const offsets = [];
  for (let todo = reader.start(); todo.length; ) {
    const action = todo.shift();
    if (action.kind === "event") offsets.push(action.offset);
    else if (action.kind === "ask_first") todo = reader.first(stored[0].position, cuts, cuts.at(-1).epoch);
    else if (action.kind === "read") todo.push(...readOf(reader, stored, action.after));
  }
  return offsets;
}

function readOf(reader, stored, after) {
  const done = [];
  for (const { position, what } of stored.filter((one) => one.position > after)) {
    done.push(...reader.history(position, entry(what)));
    if (done.some(({ kind }) => kind === "read" || kind === "ask_first")) return done;
  }
  return [...done, ...reader.historyEnd()];
}

test("where a tail begins", async () => {
  for (const { name, cuts: table, log, asked } of load("starts").cases) {
    const [cuts, subject] = [table.map(toCut), ""];
    const stored = log.flatMap(([position, [epoch, offset, ...others], count]) =>
      Array.from({ length: count }, (_, n) => ({ position: position + n, what: [epoch, offset && offset + n, ...others] })),
    );
    for (const one of stored) {
      const { cause: _, ...given } = entry(one.what);
      one.payload = bytes(given.epoch ? JSON.stringify(given) : "");
    }
    const last = stored.at(-1);
    for (const { last: n, above, since, shown } of asked) {
      const start =
        n !== undefined ? { kind: "last", n } : above !== undefined ? { kind: "above", offset: above } : { kind: "since", seconds: last.position - since };
      const options = await inTheMiddle(start, { history: historyOf(stored), subject, cuts, last });
      const found = shownOf(new Reader({ ...options, cuts, followRuns: true }), stored, cuts);
      const [from, to] = shown;
      assert.deepEqual(found, from ? Array.from({ length: to - from + 1 }, (_, i) => from + i) : [], `${name}: ${JSON.stringify(start)}`);
    }
  }
});

test("compact", () => {
  for (const { name, limit, steps } of load("compact").cases) {
    const compact = new Compact(limit);
    for (const [given, shown] of steps) {
      const item =
        typeof given === "string"
          ? notice(given, {})
          : eventOf({ epoch: 5, run: 1, offset: given[0], type: given[1], data: given[2] }, given[0]);
      const found = given === "flush" ? compact.flush() : compact.feed(item);
      assert.deepEqual(found.map((one) => (one.kind === "event" ? one.offset : one.type)), shown, name);
    }
  }
});

test("receipts, claims and records", () => {
  const parse = { receipts: parseReceipt, claims: (raw) => parseClaim(raw, 77), records: parseRecord };
  const vectors = load("records");
  for (const [kind, read] of Object.entries(parse)) {
    for (const { payload, value } of vectors[kind]) {
      if (value === null) assert.throws(() => read(bytes(payload)), BadPayload, payload);
      else assert.deepEqual(brief(kind, read(bytes(payload)), value), value, payload);
    }
  }
});

function brief(kind, { address, cuts, ...value }, expected) {
  if (kind === "claims") return { ...value, cuts: cuts.map((c) => [c.epoch, c.run, c.offset, c.position]) };
  const found = plain({ ...value, ...(address ?? {}) });
  return Object.fromEntries(Object.entries(found).filter(([name]) => name in expected)); // what else is there is kept
}

test("where the gate is asked", () => {
  for (const { prefix, sender, target, payload, stored, asked } of load("gate").cases) {
    const names = new Names(prefix);
    assert.equal(isStored(names, target), stored, target);
    // what owners ask, and what nobody may, this client does not ask: the gate would refuse it
    if (asked === null || asked.split(".")[3] === "own") continue;
    assert.equal(gateSubject(names, sender, target, bytes(payload)), asked, target);
  }
});

test("entries in bundles", () => {
  for (const { base64, after, entries } of load("bundles").cases) {
    const payload = Buffer.from(base64, "base64");
    if (entries === null) assert.throws(() => unbundle(payload), BadPayload, payload.toString());
    else {
      const found = unbundle(payload);
      const rows = found.entries.map((e) => [e.position, e.time, e.subject, Buffer.from(e.payload).toString("base64"), e.marker]);
      assert.deepEqual([found.after, rows], [after, entries]);
    }
  }
});

test("answers in parts", () => {
  for (const { parts, whole } of load("bundles").parts) {
    const joining = new Parts();
    const join = () => parts.map(([part, payload]) => joining.join(part, bytes(payload))).at(-1);
    if (whole === null) assert.throws(join, BadPayload);
    else assert.equal(new TextDecoder().decode(join()), whole);
  }
});
