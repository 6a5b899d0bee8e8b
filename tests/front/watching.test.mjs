import assert from "node:assert/strict";
import { test } from "node:test";

import { createWatch } from "../../attnprobe/show/static/watching.js";

/** A watch on a clock that is wound by hand. */
function watched(answers) {
  const [asked, errors, waits] = [[], [], []];
  let next = null;
  let here = true;
  const watch = createWatch({
    ask(run) {
      asked.push(run);
      const answer = answers[run].shift();
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
    failed: (error) => errors.push(error.message),
    alive: () => here,
    later: (run, wait) => {
      waits.push(wait);
      next = run;
      return run;
    },
    never: (timer) => {
      if (timer === next) next = null;
    },
  });
  const tick = async () => {
    const run = next;
    next = null;
    await run?.();
    await new Promise(setImmediate);
  };
  return { watch, asked, errors, waits, tick, leave: () => (here = false), ticking: () => next !== null };
}

test("a run is asked about until nobody writes it any more", async () => {
  const it = watched([[true, true, false]]);
  it.watch.start(0);
  for (let i = 0; i < 5; i++) await it.tick();
  assert.deepEqual(it.asked, [0, 0, 0]);
});

test("another run is watched as soon as it is looked at, and the one before no more", async () => {
  const it = watched([[true, true], [true, true, false]]);
  it.watch.start(0);
  await it.tick();
  it.watch.start(1);
  for (let i = 0; i < 5; i++) await it.tick();
  assert.deepEqual(it.asked, [0, 1, 1, 1]);
});

test("an answer about a run that was left starts nothing", async () => {
  const it = watched([[true], [false]]);
  it.watch.start(0);
  it.watch.start(1);
  await it.tick();
  assert.deepEqual(it.asked, [0, 1]);
  assert.equal(it.ticking(), false);
});

test("after a failure it is tried again, later than usual", async () => {
  const it = watched([[true, new Error("gone"), true, false]]);
  it.watch.start(0);
  for (let i = 0; i < 5; i++) await it.tick();
  assert.deepEqual(it.errors, ["gone"]);
  assert.equal(it.asked.length, 4);
  assert.ok(it.waits[1] > it.waits[0]);
});

test("it ends where nobody looks any more", async () => {
  const it = watched([[true, true, true]]);
  it.watch.start(0);
  await it.tick();
  it.leave();
  for (let i = 0; i < 3; i++) await it.tick();
  assert.equal(it.ticking(), false);
});
