import assert from "node:assert/strict";
import { test } from "node:test";

import { limitsOf, nextSite, pooled, thumbnails } from "../../attnprobe/show/static/thumbnails.js";

const NAN = 0x7fc0;

function bits(value) {
  return new Uint32Array(new Float32Array([value]).buffer)[0] >>> 16;
}

function number(half) {
  return new Float32Array(new Uint32Array([half << 16]).buffer)[0];
}

test("shrunk by the largest, one bright cell of a large picture stays as bright as it is", () => {
  const cells = new Uint16Array(64 * 64).fill(bits(0.001));
  cells[63 * 64 + 5] = bits(0.75);
  const drawn = pooled(cells, 64, 64, 50, 50, "max", new Uint32Array(2500));
  assert.equal(Math.max(...Array.from(drawn, number)), 0.75);
  assert.ok(drawn.lastIndexOf(bits(0.75)) >= 49 * 50);
});

test("enlarged, every cell is a block of pixels", () => {
  const cells = Uint16Array.from([1, 2, 3, 4].map(bits));
  const drawn = pooled(cells, 2, 2, 4, 4, "max", new Uint32Array(16));
  assert.deepEqual(Array.from(drawn, number), [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
});

test("what was not kept is left out, and alone stays none", () => {
  const cells = Uint16Array.from([NAN, bits(0.5), NAN, NAN]);
  for (const how of ["max", "mean"]) {
    assert.equal(number(pooled(cells, 1, 4, 1, 2, how, new Uint32Array(2))[0]), 0.5);
    assert.ok(Number.isNaN(number(pooled(cells, 1, 4, 1, 2, how, new Uint32Array(2))[1])));
  }
});

test("shrunk by the mean, a pixel is the mean of its cells", () => {
  const cells = Uint16Array.from([0, 1, 0.5, 0.25].map(bits));
  assert.deepEqual(Array.from(pooled(cells, 2, 2, 1, 1, "mean", new Uint32Array(1)), number), [0.4375]);
});

test("a picture is written where it belongs in a larger one", () => {
  const into = new Uint32Array(12);
  pooled(Uint16Array.from([7, 8]), 1, 2, 1, 2, "max", into, 5, 4);
  assert.deepEqual([...into], [0, 0, 0, 0, 0, 7, 8, 0, 0, 0, 0, 0]);
});

const cell = (site) => ({ item: { site, head: 0 } });

test("the site that is seen most comes first, and none that is here comes again", () => {
  const cells = [cell("a"), cell("b"), cell("b")];
  assert.equal(nextSite(cells, () => false), "b");
  assert.equal(nextSite(cells, (site) => site === "b"), "a");
  assert.equal(nextSite(cells, () => true), null);
});

test("colours reach from the small to the largest weights that are seen, in round numbers", () => {
  const counts = new Uint32Array(0x7f81);
  counts[0] = 1_000_000; // zeros are no weights to see
  counts[bits(3e-4)] = 900;
  counts[bits(0.03)] = 99;
  counts[bits(0.7)] = 1;
  const { low, high, max } = limitsOf(counts);
  assert.ok(Math.abs(low / 1e-4 - 1) < 1e-6);
  assert.ok(Math.abs(high - 0.05) < 1e-9, String(high));
  assert.equal(max, 1);
  assert.equal(limitsOf(new Uint32Array(0x7f81)), null);
});

test("one site is asked for at a time, each once, those seen now before those seen before", async () => {
  const asked = [];
  const waiting = [];
  const source = {
    ask(name, { site }) {
      asked.push(site);
      return new Promise((resolve) => waiting.push(() => resolve({ head: { heads: [0], shape: [1, 1, 1] }, values: new Uint16Array(1) })));
    },
  };
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  const held = thumbnails(source, { arrived: () => {}, failed: assert.fail });
  const place = { run: 0, sample: 0, how: "max" };
  held.want(place, ["a", "b", "c"].map((site) => cell(site)));
  held.want(place, ["c", "d"].map((site) => cell(site))); // scrolled on, before the first came
  for (let i = 0; i < 4; i++) {
    await settle();
    waiting.shift()?.();
  }
  await settle();
  assert.deepEqual(asked, ["a", "c", "d"]);
});

test("what fails is said once and not asked for again", async () => {
  const said = [];
  let asked = 0;
  const source = { ask: () => (asked++, Promise.reject(new Error("not kept"))) };
  const held = thumbnails(source, { arrived: () => {}, failed: (error) => said.push(error.message) });
  for (let i = 0; i < 3; i++) {
    held.want({ run: 0, sample: 0, how: "max" }, [cell("a")]);
    await new Promise((resolve) => setTimeout(resolve));
  }
  assert.deepEqual([asked, said], [1, ["not kept"]]);
});

test("what is forgotten is not drawn, and asked for again; an answer on its way is of what was asked before", async () => {
  const asked = [];
  const waiting = [];
  const source = { ask: (name, params) => (asked.push(params.run), new Promise((resolve) => waiting.push(resolve))) };
  const answer = { head: { heads: [0], shape: [1, 1, 1] }, values: Uint16Array.from([bits(0.5)]) };
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  let arrived = 0;
  const held = thumbnails(source, { arrived: () => arrived++, failed: assert.fail });
  held.want({ run: 0, sample: 0, how: "max" }, [cell("a")]);
  held.forget();
  held.want({ run: 1, sample: 0, how: "max" }, [cell("a")]);
  waiting.shift()(answer);
  await settle();
  assert.deepEqual([asked, arrived, held.limits()], [[0, 1], 0, null]);
  waiting.shift()(answer);
  await settle();
  assert.equal(arrived, 1);
  assert.notEqual(held.limits(), null);
  held.forget();
  assert.equal(held.draw(null, { site: "a", head: 0 }, 0, 0, 10, null), false);
});
