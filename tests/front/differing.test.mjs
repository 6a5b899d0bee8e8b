import assert from "node:assert/strict";
import { test } from "node:test";
import { NUMBERS, bitsOf, isMissing } from "../../attnprobe/show/static/bfloat16.js";
import { minus, subtract } from "../../attnprobe/show/static/differing.js";
import { seeded } from "./checks.mjs";

const random = seeded(6);
const patch = (rows, columns) => ({
  head: { shape: [rows, columns] },
  values: Uint16Array.from({ length: rows * columns }, () => bitsOf(random() ** 8)),
});

test("cells of both patches are subtracted where both have them", () => {
  const [a, b] = [patch(7, 5), patch(4, 9)];
  const { cells, shape } = subtract(a, b);
  assert.deepEqual(shape, [4, 5]);
  assert.equal(cells.length, 20);
  for (let row = 0; row < 4; row++) {
    for (let column = 0; column < 5; column++) {
      const [x, y] = [NUMBERS[a.values[row * 5 + column]], NUMBERS[b.values[row * 9 + column]]];
      const got = NUMBERS[cells[row * 5 + column]];
      assert.ok(Math.abs(got - (x - y)) <= Math.max(x, y) / 256, `${x} - ${y}: ${got}`);
      if (Math.abs(x - y) > Math.max(x, y) / 128) assert.equal(Math.sign(got), Math.sign(x - y));
    }
  }
});

test("a map minus itself is zero, also where rounding differs", () => {
  const a = patch(16, 16);
  const shaken = { ...a, values: a.values.map((bits) => (bits > 0 && random() < 0.5 ? bits ^ 1 : bits)) };
  for (const other of [a, shaken]) {
    const { cells } = subtract(a, other);
    assert.ok(cells.every((bits) => (bits & 0x7fff) === 0));
  }
});

test("differences have a sign, and are missing where either is", () => {
  assert.equal(minus(0.5, 0.25), 0.25);
  assert.equal(minus(0.25, 0.5), -0.25);
  assert.equal(minus(0, 0.5), -0.5);
  assert.equal(minus(0, 0), 0);
  const one = { head: { shape: [1, 3] }, values: Uint16Array.of(0x7fc0, bitsOf(0.5), bitsOf(0.5)) };
  const two = { head: { shape: [1, 3] }, values: Uint16Array.of(bitsOf(0.5), 0x7fc0, 0) };
  assert.deepEqual([...subtract(one, two).cells].map(isMissing), [true, true, false]);
});
