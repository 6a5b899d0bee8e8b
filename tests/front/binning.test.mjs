import assert from "node:assert/strict";
import { test } from "node:test";

import { band, binName, coordinates, extent, meanOfRows, nearest } from "../../attnprobe/show/static/binning.js";

test("one spike among 131,072 numbers stays in its stretch, and the mean of all is that of the stretches", () => {
  const values = new Float32Array(131072).fill(0.25);
  values[100_003] = 1;
  values[7] = NaN;
  const { low, mean, high } = band(values, 600);
  assert.equal(high.length, 600);
  const at = high.findIndex((value) => value === 1);
  assert.equal(at, Math.floor((100_003 * 600) / 131072));
  assert.equal(high.filter((value) => value === 1).length, 1);
  assert.ok(low.every((value) => value === 0.25));
  assert.ok(Math.abs(mean[at] - (0.25 + 0.75 / 218.45)) < 1e-4);
});

test("fewer numbers than stretches stay as they are; none is NaN, never zero", () => {
  const { low, mean, high } = band([1, NaN, 3], 100);
  for (const one of [low, mean, high]) assert.deepEqual([...one], [1, NaN, 3]);
  assert.equal(band([], 10).mean.length, 0);
  assert.equal(band([1, 2], 0).mean.length, 0);
});

test("every number is in exactly one stretch", () => {
  for (const [length, bins] of [[10, 3], [7, 7], [1000, 999], [5, 2]]) {
    const sums = band(Array.from({ length }, (_, i) => i), bins);
    const [counts] = [new Set()];
    sums.low.forEach((low, i) => {
      for (let value = low; value <= sums.high[i]; value++) counts.add(value);
      assert.ok(i === 0 || low === sums.high[i - 1] + 1);
    });
    assert.equal(counts.size, length);
  }
});

test("means over heads leave out what is no number", () => {
  assert.deepEqual([...meanOfRows([[1, NaN, NaN], [3, 4, NaN]])], [2, 4, NaN]);
  assert.equal(meanOfRows([]).length, 0);
  assert.deepEqual(extent([NaN, 2], [5, -1]), [-1, 5]);
  assert.equal(extent([NaN], []), null);
});

test("the nearest point within reach, the first of equals", () => {
  const points = [{ x: 0, y: 0 }, { x: 3, y: 4 }, { x: 3, y: 4 }];
  assert.equal(nearest(points, 3, 3), 1);
  assert.equal(nearest(points, 0.1, 0), 0);
  assert.equal(nearest(points, 3, 10, 5), -1);
  assert.equal(nearest(points, 3, 9, 5), 1);
  assert.equal(nearest([], 0, 0), -1);
});

test("bins of distances are named by what they hold", () => {
  assert.deepEqual([0, 1, 2, 4, 1024, 65536].map(binName), ["0", "1", "2–3", "4–7", "1024–2047", "66k–131k"]);
});

test("an axis is a list, or a start and a step", () => {
  assert.deepEqual(coordinates([0, 1, 2, 4], 4), [0, 1, 2, 4]);
  assert.deepEqual(coordinates({ start: 5, step: 2 }, 3), [5, 7, 9]);
  assert.deepEqual(coordinates(undefined, 2), [0, 1]);
});
