import assert from "node:assert/strict";
import { test } from "node:test";

import { curveSpec, histogramSpec } from "../../attnprobe/show/static/curves.js";
import { scatterSpec } from "../../attnprobe/show/static/scatter.js";
import { nameOf } from "../../attnprobe/show/static/series.js";

const COLOURS = { first: "#1", second: "#2", faint: "#f", dark: false };
const group = { title: "Self-attention", kind: "self" };
const heads = [0, 1, 2].map((head) => ({ site: "a", head, name: `L0H${head}`, label: `L0H${head}`, group, weights: true }));

function foundOf(values, coords = { start: 0, step: 1 }, own = 1) {
  const of = new Map(values.map((row, head) => [nameOf("a", head), Float32Array.from(row)]));
  return { rows: { of, coords, covers: 1 }, own: own === null ? null : { values: of.get(nameOf("a", own)), coords } };
}

const measure = { name: "entropy", unit: "nats", axes: ["query"] };

test("the chosen head is drawn last and bold, the others thin, and the mean is of all", () => {
  const found = foundOf([[1, 1, 1], [4, 5, 6], [1, 3, NaN]]);
  const { lines, x, y, table } = curveSpec({ measure, found, item: heads[1], alike: heads, length: 3, bins: 500, colours: COLOURS });
  assert.deepEqual(lines.map((one) => one.name), [undefined, undefined, "mean of 3 heads", "L0H1"]);
  assert.deepEqual([...lines[3].mean], [4, 5, 6]);
  assert.deepEqual([...lines[2].mean], [2, 3, 3.5]);
  assert.deepEqual([x.low, x.high, y.low, y.label], [0, 2, 0, "nats"]);
  assert.ok(y.high > 6);
  assert.deepEqual(table.rows, [["0", "4", "2"], ["1", "5", "3"], ["2", "6", "3.5"]]);
});

test("a spike of a long sample is in the band of the chosen head, and the axis reaches to the ends", () => {
  const long = new Float32Array(131072).fill(1);
  long[77777] = 9;
  const found = { rows: null, own: { values: long, coords: { start: 0, step: 1 } } };
  const { lines, y, x } = curveSpec({ measure, found, item: heads[1], alike: heads, length: 131072, bins: 600, colours: COLOURS });
  assert.equal(lines.length, 1);
  assert.ok(lines[0].band && lines[0].at.length === 600);
  assert.equal(Math.max(...lines[0].high), 9);
  const at = lines[0].at[lines[0].high.indexOf(9)];
  assert.ok(Math.abs(at - 77777) < 131072 / 600);
  assert.ok(y.high >= 9 && x.low < 300 && x.high > 130_700);
});

test("a shorter sequence ends where it ends, not where the longest does", () => {
  const found = foundOf([[1, 2, NaN, NaN], [3, 4, NaN, NaN]]);
  const { lines, x } = curveSpec({ measure, found, item: heads[1], alike: heads, length: 2, bins: 50, colours: COLOURS });
  assert.deepEqual([...lines.at(-1).mean], [3, 4]);
  assert.equal(x.high, 1);
});

test("rows that were recorded from a position on stand there", () => {
  const found = foundOf([[1, 2], [3, 4]], { start: 100, step: 1 });
  const { x } = curveSpec({ measure, found, item: heads[0], alike: heads, length: 102, bins: 50, colours: COLOURS });
  assert.deepEqual([x.low, x.high], [100, 101]);
});

test("where the chosen head has none, it is said, and the others are there", () => {
  const { lines, note } = curveSpec({ measure, found: foundOf([[1, 2], [3, 4]], undefined, null), item: heads[2], alike: heads, length: 2, bins: 50, colours: COLOURS });
  assert.match(note, /not recorded of L0H2/);
  assert.equal(lines.length, 3);
});

test("a histogram has a bar of the head and one of the mean for every bin, named by its distances", () => {
  const found = foundOf([[0.2, 0.8, 0], [0.4, 0.4, 0.2]], [0, 1, 2]);
  const { bars, x, table } = histogramSpec({ found, item: heads[1], alike: heads, colours: COLOURS });
  assert.deepEqual(x.names, ["0", "1", "2–3"]);
  assert.deepEqual(bars.map((one) => one.name), ["L0H1", "mean of 2 heads"]);
  assert.ok(Math.abs(bars[1].values[1] - 0.6) < 1e-6);
  assert.deepEqual(table.rows[2], ["2–3", "0.2", "0.1"]);
  assert.deepEqual(histogramSpec({ found: { rows: null, own: null }, item: heads[1], alike: heads, colours: COLOURS }).bars, []);
});

const SCORES = {
  previous: { unit: "mass", values: { a: [0.9, 0.1, null] } },
  induction: { unit: "mass", values: { a: [0, 0.6, 0.5] } },
};

test("heads are points by two measures, those without one of them are not; telling ones have their names", () => {
  const chosen = [];
  const spec = scatterSpec({ heads, scores: SCORES, x: "previous", y: "induction", here: heads[0], several: false, colours: COLOURS, pick: (item) => chosen.push(item) });
  assert.deepEqual(spec.points.map((one) => [one.name, one.x, one.y, one.label]), [["L0H1", 0.1, 0.6, "L0H1"], ["L0H0", 0.9, 0, "L0H0"]]);
  assert.deepEqual(spec.points.map((one) => one.strong), [false, true]);
  assert.deepEqual([spec.x.low, spec.y.low, spec.y.label], [0, 0, "induction (share of a row)"]);
  assert.ok(spec.x.high > 0.9 && spec.x.high < 1 && spec.y.high > 0.6 && spec.y.high < 0.7);
  assert.deepEqual(spec.guides, [{ x: 0.4 }, { y: 0.4 }]);
  assert.deepEqual(spec.legend.map((one) => one.name), ["induction", "previous-token", "other heads"]);
  spec.pick(spec.points[0]);
  assert.deepEqual(chosen, [heads[1]]);
});
