import assert from "node:assert/strict";
import { test } from "node:test";
import { tokensOf } from "../../attnprobe/show/static/tokens.js";

function counting(length) {
  const asked = [];
  const source = {
    async ask(name, { start, stop }) {
      asked.push([name, start, stop]);
      return { head: { tokens: Array.from({ length: stop - start }, (_, i) => `t${start + i}`) } };
    },
  };
  let arrivals = 0;
  const tokens = tokensOf(source, 0, 0, "main", length, { arrived: () => arrivals++, failed: assert.fail });
  return { asked, tokens, arrivals: () => arrivals };
}

test("a token is there once its block has come, which is asked for once", async () => {
  const { asked, tokens, arrivals } = counting(600);
  assert.equal(tokens.at(599), "");
  assert.equal(tokens.at(513), "");
  await new Promise(setImmediate);
  assert.equal(tokens.at(599), "t599");
  assert.deepEqual(asked, [["tokens", 512, 600]]);
  assert.equal(arrivals(), 1);
});

test("there is nothing before the first token and behind the last", () => {
  const { asked, tokens } = counting(600);
  assert.deepEqual([tokens.at(-1), tokens.at(600), tokens.at(Number.NaN)], ["", "", ""]);
  assert.deepEqual(asked, []);
});

for (const [start, stop] of [
  [0, 600],
  [255, 257],
  [300, 301],
  [-5, 9],
  [590, 900],
]) {
  test(`tokens ${start} to ${stop} are those`, async () => {
    const found = await counting(600).tokens.range(start, stop);
    const expected = Array.from({ length: 600 }, (_, i) => `t${i}`).slice(Math.max(0, start), stop);
    assert.deepEqual(found, expected);
  });
}

test("texts come with the tokens: null until they are here, empty where a character is not finished", async () => {
  const source = { ask: async () => ({ head: { tokens: ["ð", "Ł", "Ġa"], texts: ["", "🙂", " a"] } }) };
  const tokens = tokensOf(source, 0, 0, "main", 3, { arrived() {}, failed: assert.fail });
  assert.equal(tokens.textAt(0), null);
  await new Promise(setImmediate);
  assert.deepEqual([-1, 0, 1, 2, 3].map(tokens.textAt), [null, "", "🙂", " a", null]);
  assert.deepEqual(await tokens.pieces(1, 3), ["🙂", " a"]);
});

test("where no texts are known, pieces are of tokens without their marks", async () => {
  const source = { ask: async () => ({ head: { tokens: ["Ġa", "▁b", "Ċ"], texts: null } }) };
  const tokens = tokensOf(source, 0, 0, "main", 3, { arrived() {}, failed: assert.fail });
  assert.deepEqual(await tokens.pieces(0, 3), [" a", " b", "\\n"]);
  tokens.at(0);
  await new Promise(setImmediate);
  assert.equal(tokens.textAt(0), null);
});

test("a block that failed is told once, and is not asked for without end", async () => {
  const failures = [];
  let asked = 0;
  const source = { ask: async () => (asked++, Promise.reject(new Error("gone"))) };
  const tokens = tokensOf(source, 0, 0, "main", 10, { arrived: assert.fail, failed: (error) => failures.push(error.message) });
  tokens.at(3);
  await new Promise(setImmediate);
  tokens.at(4);
  await new Promise(setImmediate);
  assert.deepEqual([asked, failures], [1, ["gone"]]);
});
