import assert from "node:assert/strict";
import { test } from "node:test";
import { legendText } from "../../attnprobe/show/static/maplegend.js";

const ends = { low: 0.0001, high: 0.5 };

test("a legend says from where to where colours go, and what zero is", () => {
  const found = legendText({ ends, scale: "log", signed: false });
  assert.equal(found.high, "0.5");
  assert.equal(Number(found.low), 0.0001);
  assert.equal(found.zero, "zero");
  assert.match(found.below, /below .* first colour/u);
});

test("by row, its ends are shares", () => {
  assert.equal(legendText({ ends, scale: "row", signed: false }).high, "0.5 of the row's largest");
});

test("of differences, it goes as far down as up, and the page is none", () => {
  const found = legendText({ ends, scale: "row", signed: true });
  assert.deepEqual([found.low, found.high, found.zero], ["−0.5", "0.5", "no difference"]);
  assert.match(found.paper, /rounding/u);
});
