import assert from "node:assert/strict";
import { test } from "node:test";
import { curve } from "../../attnprobe/show/static/arcs.js";
import { latest } from "../../attnprobe/show/static/latest.js";
import { cut, inkOn, levelOf, running } from "../../attnprobe/show/static/shown.js";

test("marks of spaces and line ends are what they mean in running text", () => {
  assert.deepEqual(running("Ġexplore", 3), { text: " explore", breaks: false });
  assert.deepEqual(running("▁Hello", 0), { text: " Hello", breaks: false });
  assert.deepEqual(running("Ċ", 3), { text: "\\n", breaks: true });
  assert.deepEqual(running(".\\n", 3), { text: ".\\n", breaks: true });
  assert.deepEqual(running("", 17), { text: "[17]", breaks: false });
  assert.deepEqual(running("</script><img onerror=alert(1)>", 1), { text: "</script><img onerror=alert(1)>", breaks: false });
});

test("what is long is cut between letters, never inside of one", () => {
  assert.equal(cut("short", 5), "short");
  assert.equal(cut("x".repeat(500), 48), `${"x".repeat(47)}…`);
  const faces = cut("😀".repeat(100), 10);
  assert.deepEqual(Array.from(faces), [..."😀".repeat(9), "…"].flatMap((one) => Array.from(one)));
  assert.equal(cut("😀".repeat(10), 10), "😀".repeat(10));
});

test("ink is legible on its colour", () => {
  assert.equal(inkOn("#000004"), "#ffffff");
  assert.equal(inkOn("#fcfdbf"), "#000000");
  assert.equal(inkOn("#b73779"), "#ffffff");
  assert.equal(inkOn("#fc8961"), "#000000");
});

test("a weight's level is the square root of its share", () => {
  assert.equal(levelOf(0.25, 1), 0.5);
  assert.equal(levelOf(0, 1), 0);
  assert.equal(levelOf(Number.NaN, 1), 0);
  assert.equal(levelOf(2, 1), 1);
  assert.equal(levelOf(0.5, 0), 0);
});

test("lines end at their tokens", () => {
  const box = (left, top) => ({ left, right: left + 20, top, bottom: top + 16 });
  const up = curve(box(100, 200), box(40, 20), false);
  assert.deepEqual([up[0], up[1], up[6], up[7]], [110, 200, 50, 36]);
  const down = curve(box(100, 20), box(40, 200), false);
  assert.deepEqual([down[1], down[7]], [36, 200]);
  const flat = curve(box(100, 20), box(40, 20), false);
  assert.ok(flat[3] < 20 && flat[5] < 20);
  const across = curve(box(100, 20), box(400, 90), true);
  assert.deepEqual([across[0], across[1], across[6], across[7]], [120, 28, 400, 98]);
});

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test("of many questions one is asked, and a late answer to an earlier one is dropped", async () => {
  const [asked, seen] = [[], []];
  const questions = latest(5, assert.fail);
  const ask = (name, takes) =>
    questions.ask(async () => {
      asked.push(name);
      await pause(takes);
      return name;
    }, (answer) => seen.push(answer));
  ask("a", 1);
  ask("b", 60);
  await pause(20);
  ask("c", 1);
  await pause(120);
  assert.deepEqual(asked, ["b", "c"]);
  assert.deepEqual(seen, ["c"]);
  ask("d", 1);
  questions.drop();
  await pause(20);
  assert.deepEqual(asked, ["b", "c"]);
});

test("an error of an earlier question is nobody's", async () => {
  const errors = [];
  const questions = latest(1, (error) => errors.push(error.message));
  questions.ask(async () => { await pause(30); throw new Error("old"); }, assert.fail);
  await pause(10);
  questions.ask(async () => { throw new Error("new"); }, assert.fail);
  await pause(60);
  assert.deepEqual(errors, ["new"]);
});
