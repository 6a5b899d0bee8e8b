import assert from "node:assert/strict";
import { test } from "node:test";

import { endsOf } from "../../attnprobe/show/static/palette.js";
import { scaleOf } from "../../attnprobe/show/static/scales.js";

const LIMITS = { low: 1e-5, high: 5e-3, max: 0.5 };
const FREE = { low: null, high: null };

test("a logarithm goes up to the largest weight, so that it is told from the many below it", () => {
  const { low, high } = endsOf({ scale: "log", ...FREE }, LIMITS);
  assert.deepEqual([low, high], [1e-5, 0.5]);
  const place = scaleOf("log", low, high);
  assert.ok(place(0.5) - place(5e-3) > 0.3);
});

test("other scales go up to a quantile, and by row to a row's largest", () => {
  for (const scale of ["linear", "sqrt"]) assert.deepEqual(endsOf({ scale, ...FREE }, LIMITS), { low: 1e-5, high: 5e-3 });
  assert.deepEqual(endsOf({ scale: "row", ...FREE }, LIMITS), { low: 1e-5 / 5e-3, high: 1 });
});

test("what a person set goes before, and never makes an empty range", () => {
  assert.deepEqual(endsOf({ scale: "log", low: 1e-3, high: 0.1 }, LIMITS), { low: 1e-3, high: 0.1 });
  const { low, high } = endsOf({ scale: "log", low: 0.9, high: null }, LIMITS);
  assert.equal(low, 0.9);
  assert.ok(high > low);
});

test("a head without a weight above zero has a range too", () => {
  for (const scale of ["log", "linear", "sqrt", "row"]) {
    const { low, high } = endsOf({ scale, ...FREE }, { low: null, high: null, max: null });
    assert.ok(low > 0 && high > low && Number.isFinite(high), scale);
  }
});
