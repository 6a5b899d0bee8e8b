import assert from "node:assert/strict";
import { test } from "node:test";
import { PatchCache } from "../../attnprobe/show/static/cache.js";
import { keyOf } from "../../attnprobe/show/static/patches.js";

const CELLS = 1000;
const at = (number) => ({ level: 0, down: 0, across: number });
const later = () => new Promise((resolve) => setTimeout(resolve));

/** A cache whose requests are answered by hand. */
function made(options = {}) {
  const log = { asked: [], aborted: [], painted: [], changed: 0, failed: [] };
  const open = new Map();
  const cache = new PatchCache({
    load: (patch, signal) => {
      log.asked.push(patch.across);
      return new Promise((resolve, reject) => {
        open.set(patch.across, { resolve, reject });
        signal.addEventListener("abort", () => {
          log.aborted.push(patch.across);
          reject(new DOMException("aborted", "AbortError"));
        });
      });
    },
    paint: (entry, patch) => {
      log.painted.push(patch.across);
      entry.picture = "painted";
    },
    changed: () => log.changed++,
    failed: (error) => log.failed.push(error.message),
    ...options,
  });
  const answer = async (number) => {
    open.get(number).resolve({ cells: new Uint16Array(CELLS) });
    await later();
  };
  return { cache, log, open, answer };
}

test("six at a time, those first that are wanted most", async () => {
  const { cache, log, answer } = made();
  cache.want([7, 3, 9, 1, 5, 2, 8, 4].map(at));
  assert.deepEqual(log.asked, [7, 3, 9, 1, 5, 2]);
  await answer(9);
  assert.deepEqual(log.asked, [7, 3, 9, 1, 5, 2, 8]);
  assert.equal(log.changed, 1);
  assert.ok(cache.get(at(9)) && !cache.get(at(7)));
});

test("what is wanted again is not asked for twice", async () => {
  const { cache, log, answer } = made();
  cache.want([1, 2].map(at));
  cache.want([2, 1, 1].map(at));
  await answer(1);
  cache.want([1, 2].map(at));
  assert.deepEqual(log.asked, [1, 2]);
  assert.deepEqual(log.aborted, []);
});

test("what is no longer wanted is stopped or never asked for, and the new is asked for at once", async () => {
  const { cache, log } = made();
  cache.want([1, 2, 3, 4, 5, 6, 7, 8].map(at));
  cache.want([20, 3, 21].map(at));
  assert.deepEqual(log.aborted, [1, 2, 4, 5, 6]);
  assert.deepEqual(log.asked, [1, 2, 3, 4, 5, 6, 20, 21]);
  await later();
  assert.deepEqual(log.failed, []);
  assert.equal(cache.flights.size, 3);
});

test("an answer that comes although it was dropped changes nothing", async () => {
  const { cache, log, open } = made({ load: undefined });
  cache.load = (patch) => new Promise((resolve) => open.set(patch.across, { resolve }));
  cache.want([at(1)]);
  cache.want([at(2)]);
  open.get(1).resolve({ cells: new Uint16Array(CELLS) });
  await later();
  assert.equal(cache.get(at(1)), null);
  assert.equal(cache.bytes, 0);
  assert.equal(log.changed, 0);
});

test("memory is bounded, the least lately used goes first, and what is wanted stays", async () => {
  const bytes = 6 * CELLS * 4;
  const { cache, answer } = made({ bytes });
  for (const number of [1, 2, 3, 4]) {
    cache.want([at(number)]);
    await answer(number);
  }
  cache.picture(at(1), 0);
  cache.want([at(5)]);
  await answer(5);
  assert.deepEqual([...cache.entries.keys()], [3, 4, 1, 5].map((number) => keyOf(at(number))));
  assert.ok(cache.bytes <= bytes);
  cache.want([10, 11, 12, 13, 14].map(at));
  for (const number of [10, 11, 12, 13, 14]) await answer(number);
  assert.deepEqual([...cache.entries.keys()], [10, 11, 12, 13, 14].map((number) => keyOf(at(number))));
  assert.equal(cache.bytes, [...cache.entries.values()].reduce((sum, entry) => sum + entry.bytes, 0));
});

test("random use never goes beyond the bound and never miscounts", async () => {
  const { cache, log } = made({ bytes: 6 * CELLS * 7, load: undefined });
  cache.load = async () => ({ cells: new Uint16Array(CELLS) });
  let seed = 1;
  for (let i = 0; i < 300; i++) {
    seed = (seed * 48271) % 2147483647;
    cache.want([seed % 40, (seed >> 3) % 40].map(at));
    if (i % 3) await later();
    cache.picture(at(seed % 40), i % 4);
    assert.ok(cache.bytes <= 6 * CELLS * 7);
    assert.equal(cache.bytes, 6 * CELLS * cache.entries.size);
  }
  assert.deepEqual(log.failed, []);
});

test("a patch is coloured once a version of the colours", async () => {
  const { cache, log, answer } = made();
  cache.want([at(1)]);
  assert.equal(cache.picture(at(1), 1), null);
  await answer(1);
  for (const version of [1, 1, 2, 2, 2]) assert.equal(cache.picture(at(1), version).picture, "painted");
  assert.deepEqual(log.painted, [1, 1]);
});

test("what cannot be coloured yet is tried again, with its old colours meanwhile", async () => {
  let ready = false;
  const paint = (entry) => ready && ((entry.picture = "painted"), true);
  const { cache, answer } = made({ paint });
  cache.want([at(1)]);
  await answer(1);
  assert.equal(cache.picture(at(1), 1), null);
  ready = true;
  assert.equal(cache.picture(at(1), 1).version, 1);
  ready = false;
  assert.equal(cache.picture(at(1), 2).version, 1);
});

test("a failure is said once, others go on, and it is tried again later", async () => {
  let time = 0;
  const { cache, log, open } = made({ now: () => time });
  cache.want([1, 2].map(at));
  open.get(1).reject(new Error("gone"));
  await later();
  cache.want([1, 2].map(at));
  assert.deepEqual(log.failed, ["gone"]);
  assert.deepEqual(log.asked, [1, 2]);
  time = 10_000;
  cache.want([1, 2].map(at));
  assert.deepEqual(log.asked, [1, 2, 1]);
});

test("clearing stops all and forgets all", async () => {
  const { cache, log, answer } = made();
  cache.want([1, 2].map(at));
  await answer(1);
  cache.clear();
  assert.deepEqual(log.aborted, [2]);
  assert.equal(cache.get(at(1)), null);
  assert.equal(cache.bytes, 0);
  assert.equal(cache.busy, false);
});
