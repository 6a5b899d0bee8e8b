import assert from "node:assert/strict";
import { test } from "node:test";
import { SCALES, limitsOf, scaleOf, weightAt } from "../../attnprobe/show/static/scales.js";
import { seeded } from "./checks.mjs";

const close = (a, b, name) => assert.ok(Math.abs(a - b) < 1e-9, `${name}: ${a} is not ${b}`);

test("a decade is as long as any other on the logarithmic scale", () => {
  const place = scaleOf("log", 1e-5, 1e-1);
  [1e-5, 1e-4, 1e-3, 1e-2, 1e-1].forEach((weight, i) => close(place(weight), i / 4, weight));
});

test("linear and square root start at zero and end at the upper limit", () => {
  close(scaleOf("linear", 1e-5, 0.5)(0.125), 0.25, "linear");
  close(scaleOf("sqrt", 1e-5, 0.5)(0.125), 0.5, "sqrt");
  for (const name of ["linear", "sqrt"]) {
    assert.equal(scaleOf(name, 1e-5, 0.5)(0), 0);
    assert.equal(scaleOf(name, 1e-5, 0.5)(0.5), 1);
  }
});

test("by row the largest is at 1, and a share of low / high at 0", () => {
  const place = scaleOf("row", 1e-4, 1e-1);
  close(place(1), 1, "largest");
  close(place(0.1), 2 / 3, "a tenth");
  close(place(1e-3), 0, "a thousandth");
});

test("what is outside of the limits is at an end, and NaN stays NaN", () => {
  for (const name of SCALES) {
    const place = scaleOf(name, 1e-4, 0.1);
    assert.equal(place(0), 0, name);
    assert.equal(place(1e-9) < 0.001, true, name);
    assert.equal(place(Infinity), 1, name);
    assert.equal(place(5), 1, name);
    assert.ok(Number.isNaN(place(NaN)), name);
  }
});

test("every scale rises, and a legend's weight is at its place", () => {
  const random = seeded(2);
  for (const name of SCALES) {
    const place = scaleOf(name, 3e-6, 0.4);
    const back = weightAt(name, 3e-6, 0.4);
    let before = 0;
    for (let i = 0; i <= 50; i++) {
      const t = i / 50;
      close(place(back(t)), t, `${name} ${t}`);
      const weight = before + random() * 0.01;
      assert.ok(place(weight) >= place(before), name);
      before = weight;
    }
  }
});

test("limits are those chosen, else those found, and always make a range", () => {
  const found = { low: 1e-5, high: 0.5 };
  assert.deepEqual(limitsOf({ low: null, high: null }, found), found);
  assert.deepEqual(limitsOf({ low: 1e-3, high: null }, found), { low: 1e-3, high: 0.5 });
  for (const [chosen, of] of [
    [{ low: 0.5, high: 0.1 }, found], [{ low: null, high: null }, null], [{ low: 0, high: 0 }, { low: 0, high: 0 }],
    [{ low: null, high: null }, { low: 0.25, high: 0.25 }], [{ low: NaN, high: -1 }, { low: null, high: null }],
  ]) {
    const { low, high } = limitsOf(chosen, of);
    assert.ok(low > 0 && low < high && Number.isFinite(high), `${JSON.stringify(chosen)}: ${low}, ${high}`);
  }
});
