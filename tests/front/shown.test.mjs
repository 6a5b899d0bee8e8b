import assert from "node:assert/strict";
import { test } from "node:test";
import { edgeOf, gutterOf, way } from "../../attnprobe/show/static/arcs.js";
import { latest } from "../../attnprobe/show/static/latest.js";
import { asText, called, cut, inkOn, levelOf, running, shadeOf, textTitle } from "../../attnprobe/show/static/shown.js";

test("marks of spaces and line ends are what they mean in running text", () => {
  assert.deepEqual(running("Ġexplore", 3), { text: " explore", breaks: false });
  assert.deepEqual(running("▁Hello", 0), { text: " Hello", breaks: false });
  assert.deepEqual(running("Ċ", 3), { text: "↵", breaks: true });
  assert.deepEqual(running(".\\n", 3), { text: ".↵", breaks: true });
  assert.deepEqual(running("", 17), { text: "[17]", breaks: false });
  assert.deepEqual(running("</script><img onerror=alert(1)>", 1), { text: "</script><img onerror=alert(1)>", breaks: false });
});

test("running text is of the tokens' texts where they are known", () => {
  assert.deepEqual(asText("ðŁĻĤ", "🙂", 3), { text: "🙂", breaks: false });
  assert.deepEqual(asText("ð", "", 3), { text: "", breaks: false });
  assert.deepEqual(asText("Ċ", "\\n", 3), { text: "↵", breaks: true });
  assert.deepEqual(asText("Ġa", null, 3), running("Ġa", 3));
  assert.deepEqual(asText("Ġ", "Ġ", 3).text, "Ġ", "a letter of the text is no mark");
  const tokens = { at: (i) => ["Ġa", "ð", "b"][i], textAt: (i) => [" a", "", null][i] };
  assert.deepEqual([0, 1, 2].map((i) => called(tokens, i)), [" a", "ð", "b"]);
  assert.equal(textTitle("b", "b"), "b");
  assert.match(textTitle("Ġé", " é"), /^Ġé: “.* é.*”$/u);
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
  const ends = ({ start, end }) => [...start, ...end];
  assert.deepEqual(ends(way(box(100, 200), box(40, 20), null)), [110, 200, 50, 36]);
  assert.deepEqual(ends(way(box(100, 20), box(40, 200), null)), [110, 36, 50, 200]);
  const flat = way(box(100, 20), box(40, 20), null);
  assert.deepEqual(ends(flat), [110, 20, 50, 20]);
  assert.ok(flat.curve[3] < 20 && flat.curve[5] < 20);
});

test("between two blocks a line crosses over in the gap, in both directions", () => {
  const box = (left, top) => ({ left, right: left + 20, top, bottom: top + 16 });
  const there = way(box(100, 20), box(400, 90), [200, 300]);
  const back = way(box(400, 90), box(100, 20), [200, 300]);
  assert.deepEqual([there.curve[0], there.curve[6]], [200, 300]);
  assert.deepEqual([back.curve[0], back.curve[6]], [300, 200]);
  assert.deepEqual(there.start, back.end);
  assert.equal(there.curve[1], there.start[1]);
  assert.equal(there.curve[7], there.end[1]);
});

test("blocks above each other have no gap to cross in; a token out of the text is at its edge", () => {
  const box = (left, top) => ({ left, right: left + 20, top, bottom: top + 16 });
  assert.deepEqual(gutterOf(box(0, 0), box(50, 0)), [20, 50]);
  assert.equal(gutterOf(box(0, 0), box(0, 50)), null);
  assert.deepEqual(edgeOf(box(0, 0), true), { left: 10, right: 10, top: 0, bottom: 0 });
  assert.equal(edgeOf(box(0, 0), false).top, 16);
});

test("next to no weight has next to the page's colour", () => {
  const shade = shadeOf({ ramp: (t) => (t > 0.5 ? "#000000" : "#800000"), background: "#ffffff" });
  assert.equal(shade(0), "#ffffff");
  assert.equal(shade(1), "#000000");
  assert.equal(shade(0.1), "#e3c7c7");
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
