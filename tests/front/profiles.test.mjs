import assert from "node:assert/strict";
import { test } from "node:test";
import { NUMBERS, bitsOf } from "../../attnprobe/show/static/bfloat16.js";
import { minimapAt, minimapOf } from "../../attnprobe/show/static/minimap.js";
import { PATCH, sizeOf } from "../../attnprobe/show/static/patches.js";
import { profileOf } from "../../attnprobe/show/static/profiles.js";
import { fit } from "../../attnprobe/show/static/viewport.js";

const SHAPE = [700, 1100];
const cellAt = (level, row, column) => bitsOf(((row * 31 + column * 17 + level) % 97) / 97);

/** A patch of made-up cells. */
function patchOf(patch) {
  const shape = sizeOf(patch, SHAPE);
  const cells = new Uint16Array(shape[0] * shape[1]);
  for (let row = 0; row < shape[0]; row++) {
    for (let column = 0; column < shape[1]; column++) {
      cells[row * shape[1] + column] = cellAt(patch.level, patch.down * PATCH + row, patch.across * PATCH + column);
    }
  }
  return { cells, shape };
}

for (const level of [0, 1]) {
  test(`a row's and a column's cells, over patches, at level ${level}`, () => {
    const cell = 2 ** level;
    const row = profileOf(patchOf, level, 1, 601, 250.5, 1100);
    assert.equal(row[0][0], Math.floor(250.5 / cell) * cell);
    assert.equal(row.at(-1)[0], 1100 - cell);
    for (const [start, value] of row) assert.equal(value, NUMBERS[cellAt(level, Math.floor(601 / cell), start / cell)]);
    assert.equal(row.length, Math.ceil(1100 / cell) - Math.floor(250.5 / cell));
    const column = profileOf(patchOf, level, 0, 513, 0, 700);
    assert.equal(column.length, 700 / cell);
    for (const [start, value] of column) assert.equal(value, NUMBERS[cellAt(level, start / cell, Math.floor(513 / cell))]);
  });
}

test("what is not there yet is left out", () => {
  const found = profileOf((patch) => (patch.across === 1 ? patchOf(patch) : null), 0, 1, 5, 0, 1100);
  assert.deepEqual([found[0][0], found.at(-1)[0], found.length], [256, 511, 256]);
});

test("the minimap is there when a part is seen, in its corner, and a point of it is a place of the map", () => {
  const [area, origin] = [{ width: 900, height: 600 }, { x: 90, y: 80 }];
  const whole = fit(SHAPE, area);
  assert.equal(minimapOf(whole, area, SHAPE, origin), null);
  const frame = minimapOf({ row: 350, column: 550, pixels: 8 }, area, SHAPE, origin);
  assert.ok(frame.x + frame.width < 990 && frame.y > 80);
  assert.ok(Math.abs(frame.width / frame.height - SHAPE[1] / SHAPE[0]) < 1e-9);
  const { row, column } = minimapAt(frame, SHAPE, { x: frame.x + frame.width / 2, y: frame.y + frame.height / 4 });
  assert.ok(Math.abs(row - 175) < 1e-6 && Math.abs(column - 550) < 1e-6);
  assert.equal(minimapAt(frame, SHAPE, { x: frame.x - 5, y: frame.y }), null);
  assert.equal(minimapAt(null, SHAPE, { x: 0, y: 0 }), null);
});
