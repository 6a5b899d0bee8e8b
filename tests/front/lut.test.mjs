import assert from "node:assert/strict";
import { test } from "node:test";
import { MAPS } from "../../attnprobe/show/static/colormaps.js";
import { coloursOf, makeLut, makeShares, pack, paintCells, paintShares, rampOf, unpack } from "../../attnprobe/show/static/lut.js";
import { seeded } from "./checks.mjs";

const NONE = 0x00000000;
const ZERO = pack("#0b0e14");
const LOW = 2e-6;
const HIGH = 0.3;

/** The colour of a weight by the formula, on its own: [index of 256] before a map is turned round. */
function indexOf(scale, weight, high = HIGH) {
  let t;
  if (scale === "log") t = (Math.log2(weight) - Math.log2(LOW)) / (Math.log2(HIGH) - Math.log2(LOW));
  else if (scale === "row") t = (Math.log2(weight / high) + Math.log2(HIGH / LOW)) / Math.log2(HIGH / LOW);
  else if (scale === "linear") t = weight / HIGH;
  else t = (weight / HIGH) ** 0.5;
  return Math.max(0, Math.min(255, Math.floor(t * 256)));
}

const floats = new Float32Array(1);
const halves = new Uint16Array(floats.buffer);
/** Little-endian: the upper half is the second. */
const weightOf = (bits) => ((halves[0] = 0), (halves[1] = bits), floats[0]);
const colour = (map, i) => pack(MAPS[map].slice(6 * i, 6 * i + 6));
const settings = (more) => ({ scale: "log", low: LOW, high: HIGH, map: "magma", dark: true, zero: ZERO, none: NONE, ...more });

test("a colour's word is its bytes in a canvas's order", () => {
  assert.deepEqual([...new Uint8Array(Uint32Array.of(pack("#12ab7f")).buffer)], [0x12, 0xab, 0x7f, 0xff]);
  for (const text of ["#000000", "#ffffff", "#80ff01"]) assert.equal(unpack(pack(text)), text);
});

for (const map of ["magma", "viridis", "cividis"]) {
  for (const scale of ["log", "linear", "sqrt"]) {
    test(`every weight has the colour of the formula: ${map}, ${scale}`, () => {
      const dark = makeLut(settings({ map, scale }));
      const light = makeLut(settings({ map, scale, dark: false }));
      for (let bits = 1; bits < 0x7f80; bits++) {
        const at = indexOf(scale, weightOf(bits));
        const near = [at - 1, at, at + 1].filter((i) => i >= 0 && i < 256);
        assert.ok(near.some((i) => dark[bits] === colour(map, i)), `${weightOf(bits)} dark`);
        assert.ok(near.some((i) => light[bits] === colour(map, 255 - i)), `${weightOf(bits)} light`);
      }
      assert.equal(dark[0x7f80], colour(map, 255));
    });
  }
}

test("zero is the page, what was not kept has its own colour, of whatever sign", () => {
  for (const map of Object.keys(MAPS)) {
    const table = makeLut(settings({ map, none: 0x11223344 }));
    assert.equal(table[0], ZERO);
    assert.equal(table[0x8000], ZERO);
    for (const bits of [0x7f81, 0x7fc0, 0x7fff, 0xff81, 0xffff]) assert.equal(table[bits], 0x11223344);
    const others = table.filter((word, bits) => (bits & 0x7fff) !== 0 && (bits & 0x7fff) <= 0x7f80);
    assert.ok(!others.includes(0x11223344), "nothing else has that colour");
  }
});

test("differences of both signs are as far from the middle, on either side", () => {
  const table = makeLut(settings({ map: "difference", dark: false }));
  const words = Array.from({ length: 256 }, (_, i) => colour("difference", i));
  for (let bits = 1; bits < 0x7f80; bits += 7) {
    const [plus, minus] = [words.indexOf(table[bits]), words.indexOf(table[bits | 0x8000])];
    assert.ok(plus >= 127 && minus <= 128 && plus >= 0 && minus >= 0);
    assert.ok(Math.abs(plus + minus - 255) <= 1, `${weightOf(bits)}: ${plus}, ${minus}`);
  }
  assert.equal(table[0x3f80], words[255]);
  assert.equal(table[0xbf80], words[0]);
});

test("the ramp is the same colours as text, and its ends go on", () => {
  for (const dark of [true, false]) {
    const ramp = rampOf("viridis", dark);
    coloursOf("viridis", dark).forEach((word, i) => assert.equal(ramp((i + 0.5) / 256), unpack(word)));
    assert.equal(ramp(-1), ramp(0));
    assert.equal(ramp(2), ramp(1));
    assert.equal(ramp(NaN), ramp(0));
  }
});

test("without a page's colours, zero is that of the style sheet and unlike what was not kept", () => {
  for (const dark of [true, false]) {
    const { zero, none, ...rest } = settings({ dark });
    const table = makeLut(rest);
    assert.equal(unpack(table[0]), dark ? "#0b0d12" : "#ffffff");
    assert.notEqual(table[0], table[0x7fc0]);
  }
});

test("on a dark page a difference's middle is dark and its ends keep their hue", () => {
  const ramp = coloursOf("difference", true);
  const parts = (word) => [word & 0xff, (word >> 8) & 0xff, (word >> 16) & 0xff];
  assert.ok(Math.max(...parts(ramp[128])) < 60);
  const [red, , blue] = parts(ramp[250]);
  const [red0, , blue0] = parts(ramp[5]);
  assert.ok(red > blue && blue0 > red0);
});

test("by row a cell has the colour of its share of the row's largest, within one of 256", () => {
  const random = seeded(3);
  const shares = makeShares(settings({}));
  const rows = 64;
  const width = 100;
  const cells = Uint16Array.from({ length: rows * width }, () => 1 + Math.floor(random() * 0x3f80));
  const largest = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    cells[row * width] = 0;
    cells[row * width + 1] = 0x7fc0;
    for (let i = 2; i < width; i++) largest[row] = Math.max(largest[row], weightOf(cells[row * width + i]));
    if (row % 3 === 0) largest[row] *= 0.999; // not a number of 16 bits
  }
  const out = new Uint32Array(rows * width);
  paintShares(out, cells, largest, shares);
  const words = Array.from({ length: 256 }, (_, i) => colour("magma", i));
  for (let i = 0; i < cells.length; i++) {
    if (i % width === 0) assert.equal(out[i], ZERO);
    else if (i % width === 1) assert.equal(out[i], NONE);
    else {
      const expected = indexOf("row", weightOf(cells[i]), largest[Math.floor(i / width)]);
      assert.ok(Math.abs(words.indexOf(out[i]) - expected) <= 1, `${weightOf(cells[i])}: ${words.indexOf(out[i])}, ${expected}`);
    }
  }
});

test("a row of nothing but zeros, or of nothing, keeps their colours", () => {
  const out = new Uint32Array(4);
  paintShares(out, Uint16Array.of(0, 0x7fc0, 0, 0x7fc0), Float32Array.of(0, NaN), makeShares(settings({})));
  assert.deepEqual([...out], [ZERO, NONE, ZERO, NONE]);
});

test("painting is the table, cell by cell, also where the canvas is larger", () => {
  const table = makeLut(settings({}));
  const out = new Uint32Array(5).fill(7);
  paintCells(out, Uint16Array.of(0x3f00, 0, 0x3a00), table);
  assert.deepEqual([...out], [table[0x3f00], table[0], table[0x3a00], 7, 7]);
});
