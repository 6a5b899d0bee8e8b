import assert from "node:assert/strict";
import { test } from "node:test";

import { linearTicks, logTicks, short, spoken } from "../../attnprobe/show/static/ticks.js";

test("ticks are round, even, inside, and about as many as wanted", () => {
  assert.deepEqual(linearTicks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(linearTicks(0, 131072, 6), [0, 50000, 100000]);
  assert.deepEqual(linearTicks(-0.3, 0.3, 3), [-0.2, 0, 0.2]);
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  for (let round = 0; round < 500; round++) {
    const low = (random() - 0.5) * 10 ** (random() * 8 - 4);
    const high = low + 10 ** (random() * 8 - 4);
    const ticks = linearTicks(low, high, 6);
    assert.ok(ticks.length >= 2 && ticks.length <= 12, `${low} ${high} ${ticks}`);
    const slack = (high - low) * 1e-6;
    assert.ok(ticks[0] >= low - slack && ticks.at(-1) <= high + slack, `${low} ${high} ${ticks}`);
    const steps = ticks.slice(1).map((tick, i) => tick - ticks[i]);
    assert.ok(Math.max(...steps) - Math.min(...steps) <= steps[0] * 1e-3, `${low} ${high} ${ticks}`);
  }
});

test("positions have no ticks between whole numbers", () => {
  assert.deepEqual(linearTicks(0, 3, 8, true), [0, 1, 2, 3]);
  assert.ok(linearTicks(10.2, 11.9, 5, true).every(Number.isInteger));
});

test("no range is one tick, no number none", () => {
  assert.deepEqual(linearTicks(2, 2), [2]);
  assert.deepEqual(linearTicks(NaN, 1), []);
  assert.deepEqual(logTicks(0, 1), []);
});

test("a log axis has powers of ten, finer where these are few, sparser where many", () => {
  assert.deepEqual(logTicks(1e-3, 1, 5), [1e-3, 1e-2, 1e-1, 1]);
  assert.deepEqual(logTicks(1, 10, 6), [1, 2, 5, 10]);
  assert.deepEqual(logTicks(1e-8, 1, 4), [1e-6, 1e-3, 1]);
  assert.ok(logTicks(3, 4, 5).length >= 2);
  assert.ok(logTicks(3, 4, 5).every((tick) => tick >= 3 && tick <= 4));
});

test("numbers are short", () => {
  assert.deepEqual(
    [0, 0.123456, 1, 12.34, 1234, 20000, 131072, 2e6, 0.00012, -0.5, 3e12, NaN, 999_900].map((value) => short(value)),
    ["0", "0.123", "1", "12.3", "1234", "20k", "131k", "2M", "1.2e-4", "-0.5", "3e12", "–", "1M"],
  );
  assert.equal(spoken(131072), "131,072");
  assert.equal(spoken(0.98765), "0.988");
  assert.equal(spoken(NaN), "none");
});
