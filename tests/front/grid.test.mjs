import assert from "node:assert/strict";
import { test } from "node:test";

import { byPlace, byRank, groupsOf, headsOf, hit, moved, ranked, visible } from "../../attnprobe/show/static/grid.js";

function sites(layers, heads, more = {}) {
  return Array.from({ length: layers }, (_, layer) => ({
    key: `${more.part ?? "decoder"}.${more.kind ?? "self"}.${layer}`,
    layer,
    kind: "self",
    part: "decoder",
    heads: Array.from({ length: heads }, (_, head) => head),
    weights: Array.from({ length: heads }, (_, head) => head),
    ...more,
  }));
}

const apart = (layout) => {
  const high = layout.size + layout.strip + layout.caption;
  for (const [i, one] of layout.cells.entries()) {
    for (const other of layout.cells.slice(i + 1)) {
      const beside = one.x + layout.size <= other.x || other.x + layout.size <= one.x;
      if (!beside && one.y + high > other.y && other.y + high > one.y) return false;
    }
  }
  return true;
};

test("144 heads are at a glance on a laptop's page, none over another", () => {
  const layout = byPlace(groupsOf(sites(12, 12)), 900, 640);
  assert.equal(layout.cells.length, 144);
  assert.ok(layout.width <= 900 && layout.height <= 640, `${layout.width} x ${layout.height}`);
  assert.ok(layout.size >= 44);
  const marked = byPlace(groupsOf(sites(12, 12)), 900, 620, true);
  assert.ok(marked.height <= 620 && marked.size >= 38, "with strips too");
  assert.ok(apart(layout));
  assert.deepEqual(layout.rows.map((row) => row.label), Array.from({ length: 12 }, (_, i) => `L${i}`));
});

test("1,024 heads still fit, 5,120 scroll, and only what is seen is drawn", () => {
  const many = byPlace(groupsOf(sites(32, 32)), 960, 1000);
  assert.ok(many.width <= 960 && many.size >= 24);
  const most = byPlace(groupsOf(sites(80, 64)), 900, 640);
  assert.equal(most.cells.length, 5120);
  assert.ok(most.height > 640 && most.size === 24);
  const seen = visible(most, 0, 0, 900, 640);
  assert.ok(seen.length > 400 && seen.length < 900, seen.length);
  assert.equal(visible(most, 0, 0, 1e6, 1e6).length, 5120);
});

test("on a narrow page cells grow to what the width allows and it scrolls downwards", () => {
  const layout = byPlace(groupsOf(sites(24, 12)), 600, 500);
  assert.ok(layout.size >= 40 && layout.width <= 600 && layout.height > 500);
});

test("of a few kept heads, only their rows and columns are there", () => {
  const kept = sites(12, 12).map((site) => ({ ...site, heads: site.layer === 5 ? [1] : site.layer === 6 ? [9, 1] : [] }));
  const layout = byPlace(groupsOf(kept), 900, 600);
  assert.deepEqual(layout.columns.map((column) => column.text), ["1", "9"]);
  assert.deepEqual(layout.rows.map((row) => row.label), ["L5", "L6"]);
  assert.deepEqual(layout.cells.map((cell) => cell.item.name), ["L5H1", "L6H1", "L6H9"]);
  assert.equal(byPlace(groupsOf([]), 900, 600).cells.length, 0);
});

test("encoder, decoder and cross-attention are groups with headings, one kind alone has none", () => {
  const mixed = [...sites(2, 3, { part: "encoder" }), ...sites(2, 3), ...sites(2, 3, { kind: "cross" })];
  const groups = groupsOf(mixed);
  assert.deepEqual(groups.map((group) => group.title), ["Encoder, self-attention", "Decoder, self-attention", "Decoder, cross-attention"]);
  assert.equal(groups[0].note, "2 layers, 6 heads");
  const layout = byPlace(groups, 900, 640);
  assert.equal(new Set(layout.cells.map((cell) => cell.item.label)).size, 18);
  assert.deepEqual([0, 6, 12].map((i) => layout.cells[i].item.label), ["enc L0H0", "dec L0H0", "x L0H0"]);
  assert.equal(layout.headings.length, 3);
  assert.ok(apart(layout));
  assert.ok(layout.headings[1].y >= layout.cells[5].y + layout.size);
  assert.deepEqual(byPlace(groupsOf(sites(2, 3)), 900, 640).headings, []);
  assert.deepEqual(groupsOf([...sites(2, 1), ...sites(2, 1, { kind: "cross" })]).map((one) => one.title), ["Self-attention", "Cross-attention"]);
});

test("heads without weights are known as such", () => {
  const [site] = sites(1, 3);
  assert.deepEqual(headsOf(groupsOf([{ ...site, weights: [1] }])).map((item) => item.weights), [false, true, false]);
});

test("a ranking puts the largest first, the unknown last both ways, and keeps equals in order", () => {
  const heads = ["a", "b", "c", "d", "e", "f"];
  const values = { a: 1, b: null, c: 3, d: NaN, e: 3, f: 2 };
  assert.deepEqual(ranked(heads, (one) => values[one]), ["c", "e", "f", "a", "b", "d"]);
  assert.deepEqual(ranked(heads, (one) => values[one], true), ["a", "f", "c", "e", "b", "d"]);
  assert.deepEqual(heads, ["a", "b", "c", "d", "e", "f"]);
});

test("by rank, cells are in reading order and fit where they can", () => {
  const heads = headsOf(groupsOf(sites(12, 12)));
  const layout = byRank(heads, 900, 640, true);
  assert.deepEqual(layout.cells.map((cell) => cell.item), heads);
  assert.ok(layout.width <= 900 && apart(layout));
  layout.cells.slice(1).forEach((cell, i) => {
    const before = layout.cells[i];
    assert.ok(cell.row > before.row || (cell.row === before.row && cell.x > before.x));
  });
  assert.ok(byRank(heads.slice(0, 6), 900, 640).size > 100);
});

test("a point hits the cell that is drawn there, with strip and caption, and nothing between", () => {
  for (const layout of [byPlace(groupsOf(sites(4, 4)), 400, 400, true), byRank(headsOf(groupsOf(sites(4, 4))), 400, 400)]) {
    for (const [i, { x, y }] of layout.cells.entries()) {
      assert.equal(hit(layout, x, y), i);
      assert.equal(hit(layout, x + layout.size - 1, y + layout.size + layout.strip + layout.caption - 1), i);
      assert.notEqual(hit(layout, x - 1, y), i);
    }
    assert.equal(hit(layout, -5, -5), -1);
  }
});

test("arrow keys reach every head and stop at the edges", () => {
  const layout = byPlace(groupsOf(sites(3, 4)), 400, 400);
  assert.equal(moved(layout, 0, "ArrowRight"), 1);
  assert.equal(moved(layout, 3, "ArrowRight"), 3);
  assert.equal(moved(layout, 0, "ArrowLeft"), 0);
  assert.equal(moved(layout, 1, "ArrowDown"), 5);
  assert.equal(moved(layout, 1, "ArrowUp"), 1);
  assert.equal(moved(layout, 5, "Home"), 4);
  assert.equal(moved(layout, 5, "End"), 7);
  assert.equal(moved(layout, 5, "End", true), 11);
  assert.equal(moved(layout, 5, "Home", true), 0);
  assert.equal(moved(layout, 1, "PageDown"), 9);
  assert.equal(moved(layout, 5, "x"), -1);
});

test("down from a column that the next row lacks leads to the nearest one it has", () => {
  const kept = sites(2, 8).map((site) => ({ ...site, heads: site.layer === 0 ? [0, 3, 7] : [0, 6] }));
  const layout = byPlace(groupsOf(kept), 600, 400);
  assert.equal(layout.cells[moved(layout, 2, "ArrowDown")].item.name, "L1H6");
  assert.equal(layout.cells[moved(layout, 0, "ArrowDown")].item.name, "L1H0");
  assert.equal(moved({ ...layout, cells: [] }, 0, "ArrowDown"), -1);
});
