import assert from "node:assert/strict";
import { test } from "node:test";
import * as patches from "../../attnprobe/show/static/patches.js";
import { seeded, shapes, whole } from "./checks.mjs";

const random = seeded(5);
const LAST = 10;

/** A part of a map, in weights with fractions. */
function partOf(shape) {
  const [a, b] = [random() * shape[0], random() * shape[0]];
  const [c, d] = [random() * shape[1], random() * shape[1]];
  return { top: Math.min(a, b), bottom: Math.max(a, b) + 1e-3, left: Math.min(c, d), right: Math.max(c, d) + 1e-3 };
}

test("cells are at least one device pixel, and less than two", () => {
  for (let i = 0; i < 500; i++) {
    const pixels = 2 ** (random() * 14 - 9);
    const level = patches.levelFor(pixels, LAST);
    const cell = pixels * 2 ** level;
    assert.ok(cell > 0.999, `${pixels}: ${level}`);
    assert.ok(level === 0 || cell < 2, `${pixels}: ${level}`);
  }
  assert.equal(patches.levelFor(1 / 16, LAST), 4);
  assert.equal(patches.levelFor(1, LAST), 0);
  assert.equal(patches.levelFor(30, LAST), 0);
  assert.equal(patches.levelFor(2 ** -14, LAST), LAST);
});

test("every weight that is seen is in exactly one patch", () => {
  for (const shape of shapes(random, 60)) {
    const part = partOf(shape);
    for (const level of [0, 3, whole(random, 0, LAST + 1)]) {
      const found = patches.patchesOf(part, shape, level);
      const rectangles = found.map((patch) => patches.rectangleOf(patch, shape));
      for (let i = 0; i < 40; i++) {
        const row = Math.min(part.top + random() * (part.bottom - part.top), shape[0] - 1e-9);
        const column = Math.min(part.left + random() * (part.right - part.left), shape[1] - 1e-9);
        const holders = rectangles.filter((r) => row >= r.top && row < r.bottom && column >= r.left && column < r.right);
        assert.equal(holders.length, 1, JSON.stringify({ shape, part, level, row, column }));
      }
    }
  }
});

test("cell by cell on small maps: all of what is seen, nothing twice, no patch for nothing", () => {
  for (let i = 0; i < 20; i++) {
    const shape = [whole(random, 1, 700), whole(random, 1, 700)];
    const level = whole(random, 0, 3);
    const part = partOf(shape);
    const [rows, columns] = shape.map((length) => patches.cellsOf(length, level));
    const seen = new Uint8Array(rows * columns);
    for (const patch of patches.patchesOf(part, shape, level)) {
      const [height, width] = patches.sizeOf(patch, shape);
      assert.ok(height > 0 && width > 0 && height <= 256 && width <= 256);
      const r = patches.rectangleOf(patch, shape);
      assert.ok(r.bottom > part.top && r.top < part.bottom && r.right > part.left && r.left < part.right);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) seen[(patch.down * 256 + y) * columns + patch.across * 256 + x]++;
      }
    }
    const cell = 2 ** level;
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const there = (y + 1) * cell > part.top && y * cell < part.bottom && (x + 1) * cell > part.left && x * cell < part.right;
        assert.ok(seen[y * columns + x] <= 1);
        if (there) assert.equal(seen[y * columns + x], 1);
      }
    }
  }
});

test("the patches of a whole level are its grid, with the sizes that Python gives", () => {
  for (const shape of shapes(random, 30)) {
    const level = whole(random, 0, 6);
    const found = patches.patchesOf({ top: 0, bottom: shape[0], left: 0, right: shape[1] }, shape, level);
    const [down, across] = shape.map((length) => -(-patches.cellsOf(length, level) >> 8));
    assert.equal(found.length, down * across);
    assert.equal(new Set(found.map(patches.keyOf)).size, found.length);
    const cells = found.reduce((sum, patch) => sum + patches.sizeOf(patch, shape).reduce((a, b) => a * b), 0);
    assert.equal(cells, patches.cellsOf(shape[0], level) * patches.cellsOf(shape[1], level));
  }
});

test("the centre comes first", () => {
  const found = patches.patchesOf({ top: 0, bottom: 2560, left: 0, right: 2560 }, [2560, 2560], 0);
  const distance = ({ down, across }) => Math.hypot(down - 4.5, across - 4.5);
  for (let i = 1; i < found.length; i++) assert.ok(distance(found[i]) >= distance(found[i - 1]) - 1e-9);
  assert.ok(distance(found[0]) < 1);
});

test("nothing is needed for an empty part", () => {
  assert.deepEqual(patches.patchesOf({ top: 5, bottom: 5, left: 0, right: 9 }, [10, 10], 0), []);
});

test("a coarser patch's part shows the same weights", () => {
  for (const shape of shapes(random, 60)) {
    const level = whole(random, 0, 5);
    const all = patches.patchesOf({ top: 0, bottom: shape[0], left: 0, right: shape[1] }, shape, level);
    const patch = all[whole(random, 0, all.length)];
    const own = patches.rectangleOf(patch, shape);
    const found = patches.coarser(patch, shape, LAST);
    assert.deepEqual(found.map((one) => one.patch.level), Array.from({ length: LAST - level }, (_, i) => level + 1 + i));
    for (const { patch: other, x, y, width, height } of found) {
      const cell = 2 ** other.level;
      const r = patches.rectangleOf(other, shape);
      const [rows, columns] = patches.sizeOf(other, shape);
      assert.equal(r.left + x * cell, own.left);
      assert.equal(r.top + y * cell, own.top);
      assert.equal(r.left + (x + width) * cell, own.right);
      assert.equal(r.top + (y + height) * cell, own.bottom);
      assert.ok(x >= 0 && y >= 0 && x + width <= columns && y + height <= rows);
    }
  }
});

test("the coarsest level of use is the first that is one patch", () => {
  for (const shape of shapes(random, 60)) {
    const top = patches.topLevel(shape, LAST);
    const parts = (level) => Math.max(...shape.map((length) => Math.ceil(patches.cellsOf(length, level) / 256)));
    if (top < LAST) assert.equal(parts(top), 1);
    if (top > 0) assert.ok(parts(top - 1) > 1);
  }
});

test("what is fetched ahead is of the map, and has the next level and the ring around", () => {
  const part = { top: 512, bottom: 1024, left: 512, right: 1024 };
  const keys = patches.ahead(part, [4096, 4096], 0, 5).map(patches.keyOf);
  for (const key of ["/1/1/1", "/0/1/1", "/0/4/4", "/0/1/4"]) assert.ok(keys.includes(key), key);
  assert.ok(keys.indexOf("/1/1/1") < keys.indexOf("/0/4/4"));
  for (const shape of shapes(random, 30)) {
    for (const patch of patches.ahead(partOf(shape), shape, 2, 5)) {
      assert.ok(patches.sizeOf(patch, shape).every((length) => length > 0));
    }
  }
});
