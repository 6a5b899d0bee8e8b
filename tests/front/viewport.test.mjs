import assert from "node:assert/strict";
import { test } from "node:test";
import * as viewport from "../../attnprobe/show/static/viewport.js";
import { seeded, shapes, whole } from "./checks.mjs";

const random = seeded(4);
const areaOf = () => ({ width: whole(random, 50, 2000), height: whole(random, 50, 1500) });
const near = (a, b, by = 1e-6) => Math.abs(a - b) <= by * Math.max(1, Math.abs(a), Math.abs(b));
const viewOf = (shape) => ({ row: random() * shape[0], column: random() * shape[1], pixels: 2 ** (random() * 14 - 8) });

test("zooming keeps what is under the pointer there", () => {
  for (const shape of shapes(random, 50)) {
    const [area, view] = [areaOf(), viewOf(shape)];
    const [x, y] = [random() * area.width, random() * area.height];
    const before = viewport.weightAtPoint(view, x, y, area);
    const after = viewport.weightAtPoint(viewport.zoomAt(view, 2 ** (random() * 6 - 3), x, y, area), x, y, area);
    assert.ok(near(before.row, after.row) && near(before.column, after.column), JSON.stringify([shape, view]));
  }
});

test("zooming in keeps what is under the pointer also after clamping, from the whole map on, if it is the map", () => {
  for (const shape of shapes(random, 50)) {
    const area = areaOf();
    let view = viewport.fit(shape, area);
    for (let i = 0; i < 30; i++) {
      const part = viewport.visible(view, area, shape);
      const before = { row: part.top + random() * (part.bottom - part.top), column: part.left + random() * (part.right - part.left) };
      const { x, y } = viewport.pointOf(view, before.row, before.column, area);
      const factor = 1 + random();
      if (view.pixels * factor > viewport.LARGEST) break;
      const zoomed = viewport.clamp(viewport.zoomAt(view, factor, x, y, area), shape, area);
      const after = viewport.weightAtPoint(zoomed, x, y, area);
      assert.ok(near(before.row, after.row) && near(before.column, after.column), JSON.stringify([shape, area, view]));
      view = zoomed;
    }
  }
});

test("a drag moves the map by as many pixels", () => {
  for (const shape of shapes(random, 20)) {
    const [area, view] = [areaOf(), viewOf(shape)];
    const moved = viewport.pan(view, 31, -17);
    const [a, b] = [viewport.pointOf(view, 3, 4, area), viewport.pointOf(moved, 3, 4, area)];
    assert.ok(near(b.x - a.x, 31, 1e-4) && near(b.y - a.y, -17, 1e-4));
  }
});

test("a point of the area is a place of the map, and back", () => {
  for (const shape of shapes(random, 20)) {
    const [area, view] = [areaOf(), viewOf(shape)];
    const at = viewport.weightAtPoint(view, 12.5, 99, area);
    const point = viewport.pointOf(view, at.row, at.column, area);
    assert.ok(near(point.x, 12.5, 1e-4) && near(point.y, 99, 1e-4));
  }
});

test("the whole map fits, touches two sides, and is in the middle", () => {
  for (const shape of shapes(random, 50)) {
    const area = areaOf();
    const view = viewport.fit(shape, area);
    const [height, width] = shape.map((length) => length * view.pixels);
    assert.ok(height <= area.height * 1.000001 && width <= area.width * 1.000001);
    assert.ok(near(height, area.height) || near(width, area.width) || view.pixels === viewport.LARGEST);
    const part = viewport.visible(view, area, shape);
    const whole = [part.top, part.bottom, part.left, part.right];
    assert.ok([0, shape[0], 0, shape[1]].every((length, i) => near(length, whole[i])), JSON.stringify(part));
  }
});

test("a clamped view stays as it is, is of some part of the map, and no larger or smaller than allowed", () => {
  for (const shape of shapes(random, 100)) {
    const area = areaOf();
    const wild = { row: (random() - 0.5) * 1e5, column: (random() - 0.5) * 1e5, pixels: 2 ** (random() * 40 - 20) };
    const view = viewport.clamp(wild, shape, area);
    const again = viewport.clamp(view, shape, area);
    assert.ok(near(again.row, view.row) && near(again.column, view.column) && again.pixels === view.pixels);
    assert.ok(view.pixels <= viewport.LARGEST && view.pixels >= viewport.fitting(shape, area));
    const part = viewport.visible(view, area, shape);
    assert.ok(part.bottom > part.top && part.right > part.left);
    assert.ok(view.row >= 0 && view.row <= shape[0] && view.column >= 0 && view.column <= shape[1]);
    if (view.pixels === viewport.fitting(shape, area)) assert.ok(near(view.row, shape[0] / 2) && near(view.column, shape[1] / 2));
  }
});

test("what is visible is what points at the corners say", () => {
  for (const shape of shapes(random, 50)) {
    const area = areaOf();
    const view = viewport.clamp(viewOf(shape), shape, area);
    const part = viewport.visible(view, area, shape);
    const from = viewport.weightAtPoint(view, 0, 0, area);
    const to = viewport.weightAtPoint(view, area.width, area.height, area);
    assert.ok(near(part.top, Math.max(from.row, 0)) && near(part.left, Math.max(from.column, 0)));
    assert.ok(near(part.bottom, Math.min(to.row, shape[0])) && near(part.right, Math.min(to.column, shape[1])));
  }
});

test("the weight under a pointer, and none beside the map", () => {
  const [shape, area] = [[10, 20], { width: 400, height: 400 }];
  const view = viewport.fit(shape, area); // 20 pixels a weight, 100 pixels above and below
  assert.deepEqual(viewport.pick(view, 0, 100, area, shape), { query: 0, key: 0 });
  assert.deepEqual(viewport.pick(view, 399, 299, area, shape), { query: 9, key: 19 });
  assert.deepEqual(viewport.pick(view, 45, 141, area, shape), { query: 2, key: 2 });
  assert.equal(viewport.pick(view, 45, 99, area, shape), null);
  assert.equal(viewport.pick(view, 45, 301, area, shape), null);
});

test("a view goes to the state and back, also in a window of another size", () => {
  for (const shape of shapes(random, 50)) {
    const area = areaOf();
    const view = viewport.clamp(viewOf(shape), shape, area);
    const state = viewport.toState(view, shape, area);
    const back = viewport.fromState(state, shape, area);
    assert.ok(near(view.row, back.row) && near(view.column, back.column) && near(view.pixels, back.pixels));
    const larger = { width: area.width * 2, height: area.height * 2 };
    const other = viewport.fromState(state, shape, larger);
    assert.ok(near(other.pixels, Math.min(2 * view.pixels, viewport.LARGEST)) || state.span === null);
  }
});

test("the whole map is no span, and no span is the whole map", () => {
  const [shape, area] = [[300, 200], { width: 640, height: 480 }];
  assert.deepEqual(viewport.toState(viewport.fit(shape, area), shape, area), { row: null, column: null, span: null });
  assert.deepEqual(viewport.fromState({ row: null, column: null, span: null }, shape, area), viewport.fit(shape, area));
  assert.deepEqual(viewport.fromState({ row: 7, column: 9, span: 1e9 }, shape, area), viewport.fit(shape, area));
});

test("a weight that is looked for is seen, and one that is seen moves nothing", () => {
  for (const shape of shapes(random, 50)) {
    const area = areaOf();
    const view = viewport.clamp(viewOf(shape), shape, area);
    const [query, key] = [whole(random, 0, shape[0]), whole(random, 0, shape[1])];
    const moved = viewport.reveal(view, query, key, area, shape);
    const part = viewport.visible(moved, area, shape);
    assert.ok(query + 0.5 >= part.top - 1e-6 && query + 0.5 <= part.bottom + 1e-6, JSON.stringify([shape, area, view, query]));
    assert.ok(key + 0.5 >= part.left - 1e-6 && key + 0.5 <= part.right + 1e-6);
    const again = viewport.reveal(moved, query, key, area, shape);
    assert.ok(near(again.row, moved.row) && near(again.column, moved.column));
  }
});
