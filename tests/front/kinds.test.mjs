import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { KINDS, kindsOf, limitsOf, measuredKinds, ofKind, scoreOf } from "../../attnprobe/show/static/kinds.js";

const SCORES = {
  previous: { unit: "mass", values: { a: [0.9, 0.4, null], b: [0.1] } },
  induction: { unit: "mass", values: { a: [0.5, 0.39, 0.7] } },
  entropy: { unit: "nats", values: { a: [2, 3.5, null] } },
  own: { unit: "", values: { a: [-2, 1] } },
};

test("kinds are those of the Python package: names, order, measures, thresholds, meanings", () => {
  const python = readFileSync(new URL("../../attnprobe/kinds.py", import.meta.url), "utf8");
  const written = [...python.matchAll(/Kind\(\s*"([^"]+)",\s*"([^"]+)",\s*([\d.]+),\s*"([^"]+)"/g)];
  assert.deepEqual(
    KINDS.map((kind) => [kind.name, kind.measure, kind.threshold, kind.meaning]),
    written.map(([, name, measure, threshold, meaning]) => [name, measure, Number(threshold), meaning]),
  );
});

test("each kind has a letter of its own, and white letters stand out on its colour", () => {
  assert.equal(new Set(KINDS.map((kind) => kind.letter)).size, KINDS.length);
  for (const { colour } of KINDS) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    const [red, green, blue] = parts.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    assert.ok(1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5, colour);
  }
});

test("a kind is above its threshold, not at it; a missing number names none", () => {
  const names = (site, head) => kindsOf(SCORES, site, head).map((kind) => kind.name);
  assert.deepEqual(names("a", 0), ["induction", "previous-token"]);
  assert.deepEqual(names("a", 1), []);
  assert.deepEqual(names("a", 2), ["induction"]);
  assert.deepEqual(names("b", 0), []);
  assert.deepEqual(names("elsewhere", 0), []);
  assert.deepEqual(measuredKinds(SCORES).map((kind) => kind.letter), ["I", "P"]);
});

test("where no head passes, the one with most is told; where one does, it is enough", () => {
  const heads = [["a", 0], ["a", 1], ["a", 2], ["b", 0]].map(([site, head]) => ({ site, head }));
  const names = ({ found, most }) => [found.map(({ site, head }) => site + head), most && most.site + most.head];
  const [induction, previous] = KINDS;
  assert.deepEqual(names(ofKind(induction, heads, SCORES)), [["a2", "a0"], null]);
  assert.deepEqual(names(ofKind(previous, heads.slice(1), SCORES)), [[], "a1"]);
  assert.deepEqual(names(ofKind(previous, [heads[2]], SCORES)), [[], null], "it has no score");
});

test("a score that is not there is null, also of names that every object has", () => {
  assert.equal(scoreOf(SCORES, "previous", "a", 2), null);
  assert.equal(scoreOf(SCORES, "previous", "b", 7), null);
  assert.equal(scoreOf(SCORES, "constructor", "a", 0), null);
  assert.equal(scoreOf(SCORES, "previous", "constructor", 0), null);
  assert.equal(scoreOf(SCORES, "previous", "a", 0), 0.9);
});

test("a share is drawn from 0 to 1, anything else from 0 or below to its largest", () => {
  assert.deepEqual(limitsOf(SCORES, "previous"), [0, 1]);
  assert.deepEqual(limitsOf(SCORES, "entropy"), [0, 3.5]);
  assert.deepEqual(limitsOf(SCORES, "own"), [-2, 1]);
  assert.deepEqual(limitsOf({ none: { unit: "", values: { a: [null] } } }, "none"), [0, 1]);
});
