import assert from "node:assert/strict";
import { test } from "node:test";
import { createExact } from "../../attnprobe/show/static/exact.js";
import { SharedView, sharedView } from "../../attnprobe/show/static/sharedview.js";
import { createStrips } from "../../attnprobe/show/static/strips.js";

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const PLACE = { run: 0, sample: 0, site: "h.0.attn", head: 3 };
const SHAPE = [100, 70];
const weightOf = (query, key) => query * 1000 + key;

/** A source that holds weights of known size. */
function made() {
  const asked = [];
  const source = {
    async ask(name, { top, bottom, left, right, ...place }) {
      asked.push([name, top, bottom, left, right]);
      assert.deepEqual(place, PLACE);
      if (top >= 64) throw new Error("not here");
      const values = [];
      for (let query = top; query < bottom; query++) for (let key = left; key < right; key++) values.push(weightOf(query, key));
      return { head: {}, values: Float32Array.from(values) };
    },
  };
  let changed = 0;
  return { exact: createExact(source, { changed: () => changed++ }), asked, changes: () => changed };
}

test("a weight is that of its query and key, at the sides too, and a block is asked for once", async () => {
  const { exact, asked, changes } = made();
  const wanted = [[5, 6], [5, 7], [40, 69], [31, 32]];
  for (const one of wanted) assert.equal(exact.at(PLACE, ...one), undefined);
  exact.want(wanted.map((one) => [PLACE, SHAPE, ...one]));
  assert.equal(exact.busy, true);
  await pause(120);
  for (const one of wanted) assert.equal(exact.at(PLACE, ...one), weightOf(...one));
  assert.deepEqual(asked, [["weights", 0, 32, 0, 32], ["weights", 32, 64, 64, 70], ["weights", 0, 32, 32, 64]]);
  assert.equal(exact.at({ ...PLACE, head: 4 }, 5, 6), undefined);
  assert.equal(exact.busy, false);
  assert.equal(changes(), 3);
});

test("only what is wanted when the pointer rests is asked for", async () => {
  const { exact, asked } = made();
  exact.want([[PLACE, SHAPE, 1, 1]]);
  exact.want([[PLACE, SHAPE, 33, 1]]);
  await pause(120);
  assert.deepEqual(asked, [["weights", 32, 64, 0, 32]]);
  exact.want([[PLACE, SHAPE, 1, 1]]);
  exact.want([]);
  await pause(120);
  assert.equal(asked.length, 1);
});

test("what cannot be had is null, and not asked for again", async () => {
  const { exact, asked } = made();
  for (let i = 0; i < 2; i++) {
    exact.want([[PLACE, SHAPE, 70, 1]]);
    await pause(120);
    assert.equal(exact.at(PLACE, 70, 1), null);
  }
  assert.equal(asked.length, 1);
});

test("the blocks of a part are each named once", () => {
  const { exact } = made();
  const blocks = exact.corners({ top: 30.5, bottom: 65, left: 0, right: 32 }).map((one) => one.map((at) => Math.floor(at / 32)));
  assert.deepEqual(blocks, [[0, 0], [1, 0], [2, 0]]);
});

test("all maps follow at once, and the state is told once the hand rests", async () => {
  const told = [];
  const app = { state: { row: null, column: null, span: null, other: 1 }, set: (changes) => told.push(changes) };
  const view = sharedView(app);
  assert.equal(sharedView(app), view);
  assert.ok(view instanceof SharedView);
  let followed = 0;
  view.followers.add(() => followed++);
  for (let row = 1; row <= 5; row++) view.move({ row, column: 2, span: 3 });
  assert.equal(followed, 5);
  assert.deepEqual(told, []);
  view.adopt(); // the state is older than the hand
  assert.equal(view.part.row, 5);
  await pause(250);
  assert.deepEqual(told, [{ row: 5, column: 2, span: 3 }]);
  app.state = { row: 9, column: 9, span: 9 };
  view.adopt();
  assert.deepEqual(view.part, { row: 9, column: 9, span: 9 });
  view.move({ row: 1, column: 1, span: 1 });
  view.settle();
  assert.equal(told.length, 2);
  view.settle();
  assert.equal(told.length, 2);
});

test("the crosshair is told when it moves", () => {
  const view = new SharedView({ state: {}, set() {} });
  let followed = 0;
  view.followers.add(() => followed++);
  for (const cross of [{ query: 1, key: 2 }, { query: 1, key: 2 }, { query: 1, key: 3 }, null, null]) view.point(cross);
  assert.equal(followed, 3);
});

test("a strip is asked for once; one that cannot be had is said, and told apart from one to come", async () => {
  const said = [];
  const asked = [];
  const source = {
    async ask(name, params) {
      asked.push([name, params.down]);
      if (params.down > 0) throw new Error("not here");
      return { head: {}, values: Float32Array.of(0.5) };
    },
  };
  let changed = 0;
  const strips = createStrips(source, { changed: () => changed++, failed: (error) => said.push(error.message) });
  for (const down of [0, 1, 0, 1]) assert.equal(strips.get({ ...PLACE, down }), null);
  assert.equal(strips.busy, true);
  await pause(5);
  assert.deepEqual([...strips.get({ ...PLACE, down: 0 })], [0.5]);
  assert.equal(strips.get({ ...PLACE, down: 1 }), false);
  assert.deepEqual([strips.busy, changed, said, asked], [false, 2, ["not here"], [["strip", 0], ["strip", 1]]]);
});
