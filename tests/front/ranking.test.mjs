import assert from "node:assert/strict";
import { test } from "node:test";
import { agreement, boxInWords, rank, tidyBox } from "../../attnprobe/show/static/ranking.js";

test("a box is put in order and cut to the map", () => {
  assert.deepEqual(tidyBox([10.7, 3.2, -5, 99], [20, 30]), [3, 11, 0, 30]);
  assert.equal(tidyBox([5, 5, 0, 3], [20, 30]), null);
  assert.equal(tidyBox([25, 28, 0, 3], [20, 30]), null);
  assert.equal(tidyBox([0, Number.NaN, 0, 3], [20, 30]), null);
  assert.equal(tidyBox([0, 1, 2], [20, 30]), null);
});

test("heads are in order of mass over all sites; ties in the model's order; without a number, none", () => {
  const answers = [
    { key: "b", heads: [0, 3], mass: [0.5, null], exact: true },
    { key: "a", heads: [0, 1, 2], mass: [0.75, 0.5, Number.NaN], exact: false },
  ];
  assert.deepEqual(rank(answers), [
    { key: "a", head: 0, mass: 0.75, exact: false },
    { key: "b", head: 0, mass: 0.5, exact: true },
    { key: "a", head: 1, mass: 0.5, exact: false },
  ]);
});

test("bounds are said in words, their ends as they are and not behind the last", () => {
  assert.equal(boxInWords([20_000, 20_256, 0, 512]), "256 queries (20,000 to 20,255) × 512 keys (0 to 511)");
  assert.equal(boxInWords([7, 8, 0, 1]), "1 query (7) × 1 key (0)");
});

test("maps of one shape can be subtracted, and texts that differ are told", () => {
  const a = { shape: [3, 3], tokens: ["a", "b", "c"] };
  assert.deepEqual(agreement(a, { shape: [3, 3], tokens: ["a", "b", "c"] }), { subtract: true, text: "" });
  assert.deepEqual(agreement(a, { shape: [3, 3], tokens: null }), { subtract: true, text: "" });
  const other = agreement(a, { shape: [3, 3], tokens: ["a", "x", "c"] });
  assert.ok(other.subtract);
  assert.match(other.text, /differ from token 1 on/);
  const wide = agreement(a, { shape: [3, 4], tokens: ["a", "b", "c"] });
  assert.ok(!wide.subtract);
  assert.match(wide.text, /3 × 3.*3 × 4.*cannot be subtracted/);
});
