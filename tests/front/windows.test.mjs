import assert from "node:assert/strict";
import { test } from "node:test";
import { countBefore, indexIn, inWords, largest, parts, positionIn, windowAround, windowSize } from "../../attnprobe/show/static/windows.js";

test("a stretch lies around its centre, and inside of the text", () => {
  assert.deepEqual(windowAround(1000, 512, 16_384), [744, 1256]);
  assert.deepEqual(windowAround(0, 512, 16_384), [0, 512]);
  assert.deepEqual(windowAround(16_383.4, 512, 16_384), [15_872, 16_384]);
  assert.deepEqual(windowAround(7, 512, 20), [0, 20]);
  assert.deepEqual(windowAround(0, 512, 0), [0, 0]);
});

test("a stretch has some hundred to two thousand tokens", () => {
  assert.equal(windowSize(null), 512);
  assert.equal(windowSize(3), 128);
  assert.equal(windowSize(700.4), 700);
  assert.equal(windowSize(131_072), 2048);
});

test("what is outside of a stretch is summed, and its largest weight found", () => {
  const weights = Float32Array.of(0.25, 0.125, Number.NaN, 0.5, 0, 0.0625, 0.0625);
  const found = parts(weights, (i) => i + 10, 12, 15);
  assert.deepEqual(found.before, { mass: 0.375, at: 10, weight: 0.25, count: 2 });
  assert.deepEqual(found.inside, { mass: 0.5, at: 13, weight: 0.5, count: 3 });
  assert.deepEqual(found.after, { mass: 0.125, at: 15, weight: 0.0625, count: 2 });
});

test("the largest weights come first, ties in order of position, and neither zero nor NaN among them", () => {
  const weights = Float32Array.of(0.1, 0.3, 0.2, 0.3, 0, Number.NaN);
  assert.deepEqual(largest(weights, 3), [1, 3, 2]);
  assert.deepEqual(largest(weights, 10), [1, 3, 2, 0]);
  assert.deepEqual(largest(weights, 3, 2, 6), [3, 2]);
  assert.deepEqual(largest(weights, 2, 0, 6, 1), [3, 2]);
});

test("the largest are those that sorting finds", () => {
  const weights = Float32Array.from({ length: 5000 }, (_, i) => ((i * 7919) % 641) / 641);
  const sorted = [...weights.keys()].sort((a, b) => weights[b] - weights[a] || a - b);
  assert.deepEqual(largest(weights, 24), sorted.slice(0, 24));
});

test("kept rows are counted over their ranges, both ways", () => {
  const ranges = [[2, 4], [8, 9], [100, 103]];
  const positions = [2, 3, 8, 100, 101, 102];
  const position = positionIn(ranges);
  assert.deepEqual(positions.map((_, i) => position(i)), positions);
  assert.equal(position(0), 2);
  for (const at of [0, 1, 4, 7, 9, 99, 103]) assert.equal(indexIn(ranges, at), -1);
  positions.forEach((at, i) => assert.equal(indexIn(ranges, at), i));
  assert.equal(positionIn([])(0), -1);
  for (let at = 0; at < 110; at += 1) assert.equal(countBefore(ranges, at), positions.filter((one) => one < at).length);
});

test("ranges are read aloud", () => {
  assert.equal(inWords([]), "none");
  assert.equal(inWords([[0, 16]]), "0 to 15");
  assert.equal(inWords([[0, 16], [64, 65], [100, 121]]), "0 to 15, 64 and 100 to 120");
  assert.match(inWords(Array.from({ length: 9 }, (_, i) => [2 * i, 2 * i + 1])), /^0, 2, 4, 6, 8 and 4 more ranges$/);
});
