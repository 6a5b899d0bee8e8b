import assert from "node:assert/strict";
import { test } from "node:test";
import { nearTo, placesOf } from "../../attnprobe/show/static/searching.js";

const PIECES = ["To", " p", "aint", " a", " night", ".\\n", "P", "ain", "ted", " p", "aint", "", "🙂", " x"];

test("a word of several tokens is where its last one is", () => {
  assert.deepEqual(placesOf("paint", PIECES), [{ from: 1, at: 2 }, { from: 6, at: 8 }, { from: 9, at: 10 }]);
  assert.deepEqual(placesOf(" Painted ", PIECES), [{ from: 6, at: 8 }]);
  assert.deepEqual(placesOf("🙂", PIECES), [{ from: 12, at: 12 }]);
  assert.deepEqual(placesOf("paint🙂", PIECES), [{ from: 9, at: 12 }]);
});

test("words go over spaces and ends of lines", () => {
  assert.deepEqual(placesOf("paint  a night", PIECES), [{ from: 1, at: 4 }]);
  assert.deepEqual(placesOf("night. pain", PIECES), [{ from: 4, at: 7 }]);
});

test("what is not there has no place, and nothing typed neither; no sign is a pattern", () => {
  for (const typed of ["zebra", "", "  ", ".*", "p.int", "(", "[a", "\\"]) assert.deepEqual(placesOf(typed, PIECES), [], typed);
  assert.deepEqual(placesOf("a-b (c)/d|", ["a-", "b (c)", "/d", "|"]), [{ from: 0, at: 3 }]);
  assert.deepEqual(placesOf("a", []), []);
});

test("places are found as in the text itself, cut anywhere", () => {
  const text = "banana bandana an ban";
  for (let seed = 1; seed < 40; seed += 1) {
    const cuts = Array.from(text, (_, i) => (i * 7919 * seed) % 11 < 4);
    const pieces = [""];
    for (const [i, letter] of Array.from(text).entries()) {
      if (cuts[i]) pieces.push("");
      pieces[pieces.length - 1] += letter;
    }
    const pieceOf = pieces.flatMap((piece, at) => Array.from(piece, () => at));
    const expected = [];
    for (let i = text.indexOf("an"); i >= 0; i = text.indexOf("an", i + 2)) {
      if (expected.at(-1) !== pieceOf[i + 1]) expected.push(pieceOf[i + 1]);
    }
    assert.deepEqual(placesOf("an", pieces).map(({ at }) => at), expected, pieces.join("|"));
  }
});

test("near are words that begin alike", () => {
  assert.deepEqual(nearTo("nightly", PIECES), ["night"]);
  assert.deepEqual(nearTo("PAINS", PIECES), ["paint", "Painted"]);
  assert.deepEqual(nearTo("pair", [" pai", "nter", " pad paint\\npale pa"]), ["paint", "painter", "pa"]);
  assert.deepEqual(nearTo("zebra", PIECES), []);
});
