import assert from "node:assert/strict";
import { test } from "node:test";
import { NUMBERS, bitsOf, isMissing } from "../../attnprobe/show/static/bfloat16.js";
import { seeded } from "./checks.mjs";

const view = new DataView(new ArrayBuffer(4));

/** By another way: two bytes before two zero bytes, read as a big-endian float32. */
function numberOf(bits) {
  view.setUint16(0, bits);
  view.setUint16(2, 0);
  return view.getFloat32(0);
}

test("each of the 65,536 patterns is the number that a DataView reads", () => {
  assert.equal(NUMBERS.length, 65536);
  for (let bits = 0; bits < 65536; bits++) {
    assert.ok(Object.is(NUMBERS[bits], numberOf(bits)), `pattern ${bits}: ${NUMBERS[bits]}`);
  }
});

test("a number that a pattern stands for has that pattern, and NaN is missing", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const missing = Number.isNaN(numberOf(bits));
    assert.equal(isMissing(bits), missing);
    if (missing) assert.ok(isMissing(bitsOf(numberOf(bits))));
    else assert.equal(bitsOf(numberOf(bits)), bits);
  }
});

test("what lies between two patterns goes to the nearer, from the middle to the even one", () => {
  const random = seeded(1);
  for (let i = 0; i < 5000; i++) {
    const low = Math.floor(random() * 0x7f00);
    const [a, b] = [numberOf(low), numberOf(low + 1)];
    const value = Math.fround(a + (b - a) * random());
    const expected = value - a < b - value ? low : value - a > b - value ? low + 1 : low + (low & 1);
    assert.equal(bitsOf(value), expected, `${value}`);
    const even = low + (low & 1);
    assert.equal(bitsOf((a + b) / 2), even);
  }
});
