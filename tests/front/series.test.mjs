import assert from "node:assert/strict";
import { test } from "node:test";

import { padded, scaleOf } from "../../attnprobe/show/static/axes.js";
import { readable } from "../../attnprobe/show/static/cells.js";
import { curveMeasures, nameOf, pick, remembering, rowsOf } from "../../attnprobe/show/static/series.js";

function sampleOf(rows) {
  return {
    sites: [{ key: "a", heads: [0, 2], rows, columns: rows }],
    measures: [
      { name: "entropy", unit: "nats", axes: ["query"] },
      { name: "received", unit: "rows", axes: ["key"] },
      { name: "distances", unit: "mass", axes: ["distance"] },
      { name: "pooled_max", unit: "mass", axes: ["query_cell", "key_cell"] },
    ],
  };
}

test("curves are measures with one number a query or a key", () => {
  assert.deepEqual(curveMeasures(sampleOf(3)).map((one) => one.name), ["entropy", "received"]);
});

test("a chosen name that is there is taken, else what is looked at first", () => {
  assert.equal(pick(["max", "entropy"], "max", ["entropy"], 0), "max");
  assert.equal(pick(["max", "entropy"], "gone", ["entropy"], 0), "entropy");
  assert.equal(pick(["one", "two"], "", ["entropy"], 1), "two");
  assert.equal(pick(["one"], "", ["entropy"], 1), "one");
  assert.equal(pick([], "", ["entropy"], 1), "");
});

const PLACE = { run: 0, sample: 1, site: "a", head: 2 };

function answering(answers) {
  const asked = [];
  return {
    asked,
    async ask(name, params) {
      asked.push([name, params]);
      if (answers[name] instanceof Error) throw answers[name];
      return answers[name];
    },
  };
}

const stripes = (covers) => ({
  head: { sites: ["a", "a"], heads: [0, 2], covers, coords: { query: { start: 0, step: covers } } },
  values: Float32Array.from([1, 2, 3, 4, 5, 6]),
});

test("all heads come in one answer, each under its own name, and the chosen one is one of them", async () => {
  const source = answering({ stripes: stripes(1) });
  const { rows, own } = await rowsOf(source, PLACE, "query", "entropy");
  assert.deepEqual(source.asked, [["stripes", { run: 0, sample: 1, name: "entropy" }]]);
  assert.deepEqual([...rows.of.get(nameOf("a", 0))], [1, 2, 3]);
  assert.deepEqual([...own.values], [4, 5, 6]);
});

test("of a long sample all heads are means, and the chosen one is asked for exactly", async () => {
  const exact = { head: { coords: { query: { start: 0, step: 1 } } }, values: new Float32Array(12) };
  const source = answering({ stripes: stripes(4), measure: exact });
  const { rows, own } = await rowsOf(source, PLACE, "query", "entropy");
  assert.deepEqual(source.asked[1], ["measure", { ...PLACE, name: "entropy" }]);
  assert.equal(own.values.length, 12);
  assert.equal(rows.of.get(nameOf("a", 2)).length, 3);
});

test("what cannot be had exactly is shown as coarsely as it is there; what is not there at all is an error", async () => {
  const { own } = await rowsOf(answering({ stripes: stripes(4), measure: new Error("not in this file") }), PLACE, "query", "entropy");
  assert.deepEqual([[...own.values], own.coords], [[4, 5, 6], { start: 0, step: 4 }]);
  const nothing = answering({ stripes: new Error("not in this file"), measure: new Error("not in this file") });
  await assert.rejects(rowsOf(nothing, PLACE, "query", "entropy"), /not in this file/);
});

test("where all heads are too many to be read, there is the chosen one; where that has none, there are the others", async () => {
  const exact = { head: { coords: { query: { start: 0, step: 1 } } }, values: new Float32Array(7) };
  const alone = await rowsOf(answering({ stripes: new Error("more than are shown"), measure: exact }), PLACE, "query", "entropy");
  assert.deepEqual([alone.rows, alone.own.values.length], [null, 7]);
  const source = answering({ stripes: stripes(1) });
  const others = await rowsOf(source, { ...PLACE, head: 1 }, "query", "entropy");
  assert.deepEqual([others.own, others.rows.of.size, source.asked.length], [null, 2, 1]);
});

test("a question is asked once while it is remembered; what failed is asked again", async () => {
  let asked = 0;
  const source = remembering({ ask: async (name) => (asked++, name === "bad" ? Promise.reject(new Error(name)) : asked) }, 2);
  assert.equal(await source.ask("a", { x: 1 }), await source.ask("a", { x: 1 }));
  assert.equal(asked, 1);
  await assert.rejects(source.ask("bad", {}), /bad/);
  await assert.rejects(source.ask("bad", {}), /bad/);
  assert.equal(asked, 3);
  for (const name of ["b", "c"]) await source.ask(name, {});
  await source.ask("a", { x: 1 }); // was the oldest
  assert.equal(asked, 6);
});

test("scales go there and back, logarithms too, and zero is at the low end of a log axis", () => {
  for (const axis of [{ kind: "linear", low: -2, high: 6 }, { kind: "log", low: 1e-4, high: 10 }]) {
    const scale = scaleOf(axis, 300, 20);
    assert.equal(Math.round(scale.at(axis.low)), 300);
    assert.equal(Math.round(scale.at(axis.high)), 20);
    assert.ok(Math.abs(scale.at(scale.back(111)) - 111) < 1e-9);
  }
  assert.equal(scaleOf({ kind: "log", low: 1e-4, high: 10 }, 0, 100).at(0), 0);
  const bars = scaleOf({ kind: "names", names: ["a", "b", "c"] }, 0, 300);
  assert.deepEqual([bars.at(0), bars.at(2), bars.back(299), bars.back(-5)], [50, 250, 2, 0]);
});

test("limits get room, but a share's 0 and 1 stay", () => {
  assert.deepEqual(padded([0, 1]), [0, 1]);
  assert.ok(padded([0, 2])[0] === 0 && padded([0, 2])[1] > 2);
  assert.ok(padded([-1, 0.5])[0] < -1);
  assert.ok(padded([3, 3])[1] > padded([3, 3])[0]);
});

test("letters on a filled cell stand out", () => {
  assert.equal(readable("#000004"), "#ffffff");
  assert.equal(readable("#fcffa4"), "#000000");
});
