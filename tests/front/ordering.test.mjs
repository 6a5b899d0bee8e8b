import assert from "node:assert/strict";
import { test } from "node:test";
import { delimited, exact, meant, order, readable, summary } from "../../attnprobe/show/static/ordering.js";

const WEIGHTS = Float32Array.of(0.5, 0.125, Number.NaN, 0.25, 0.125);
const TOKENS = ["the", " Cat", "sat", "the", " cat"];
const tokenOf = (i) => TOKENS[i];
const listed = (...settings) => [...order(WEIGHTS, ...settings)];

test("rows are in order of position, token or weight, ties by position and NaN last", () => {
  assert.deepEqual(listed("position", false, assert.fail), [0, 1, 2, 3, 4]);
  assert.deepEqual(listed("position", true, assert.fail), [4, 3, 2, 1, 0]);
  assert.deepEqual(listed("weight", true, assert.fail), [0, 3, 1, 4, 2]);
  assert.deepEqual(listed("weight", false, assert.fail), [1, 4, 3, 0, 2]);
  assert.deepEqual(listed("token", false, tokenOf), [1, 4, 2, 0, 3]);
  assert.deepEqual(listed("token", true, tokenOf), [0, 3, 2, 4, 1]);
});

test("a filter finds a part of a token, in upper or lower case", () => {
  assert.deepEqual(listed("weight", true, tokenOf, "CAT"), [1, 4]);
  assert.deepEqual(listed("position", false, tokenOf, "dog"), []);
});

test("a row is summed up: an even row over n keys has entropy ln n", () => {
  const even = summary(new Float32Array(64).fill(1 / 64));
  assert.ok(Math.abs(even.entropy - Math.log(64)) < 1e-12);
  assert.equal(even.sum, 1);
  const found = summary(Float32Array.of(0.5, 0.25, 0, 0.25, Number.NaN), 0);
  assert.equal(found.entropy, 0.5 * Math.log(2) + 0.5 * Math.log(4));
  assert.deepEqual([found.sum, found.most, found.positive, found.unknown, found.count], [1, 0.25, 3, 1, 5]);
});

test("what is typed is a position, a token, its text, or a part of it", () => {
  const tokens = ["<s>", "Ġ17", "Ġexplore", "ex", "Ġex", "Ċ", "explored"];
  assert.deepEqual(meant("3", tokens), { positions: [3], how: "position" });
  assert.deepEqual(meant("-1", tokens), { positions: [6], how: "position" });
  assert.deepEqual(meant("17", tokens), { positions: [1], how: "token" });
  assert.deepEqual(meant("Ġex", tokens), { positions: [4], how: "token" });
  assert.deepEqual(meant(" EX", tokens), { positions: [3, 4], how: "token" });
  assert.deepEqual(meant("plore", tokens), { positions: [2, 6], how: "part" });
  assert.deepEqual(meant("zebra", tokens), { positions: [], how: "none" });
  assert.deepEqual(meant("  ", tokens), { positions: [], how: "none" });
});

test("a weight is written with the shortest digits that are the same float32", () => {
  for (const value of [0.1, 1 / 3, 1e-7, 5.877e-39, 0.999_999_94, 3.4e38, 0, 1]) {
    const text = exact(Math.fround(value));
    assert.equal(Math.fround(Number(text)), Math.fround(value));
    assert.ok(text.length <= 14, text);
  }
  assert.equal(exact(Math.fround(0.1)), "0.1");
  assert.equal(exact(Number.NaN), "nan");
});

test("a person reads four digits", () => {
  assert.equal(readable(0.312_345), "0.3123");
  assert.equal(readable(0), "0");
  assert.equal(readable(1.234e-7), "1.23e−7");
  assert.equal(readable(Number.NaN), "–");
});

test("a field with a separator, a quote or a line's end is quoted", () => {
  const rows = [[0, "a,b", 0.5], [1, 'say "hi"', 1], [2, "x\ty\n", 2]];
  assert.equal(delimited(rows, ","), '0,"a,b",0.5\n1,"say ""hi""",1\n2,"x\ty\n",2\n');
  assert.equal(delimited(rows, "\t"), '0\ta,b\t0.5\n1\t"say ""hi"""\t1\n2\t"x\ty\n"\t2\n');
});

test("a row of 128k keys is put in order in a blink", () => {
  const weights = Float32Array.from({ length: 131_072 }, (_, i) => ((i * 7919) % 131_071) / 131_071);
  const before = performance.now();
  const indices = order(weights, "weight", true, assert.fail);
  assert.ok(performance.now() - before < 2000);
  for (let i = 1; i < indices.length; i += 1) assert.ok(weights[indices[i - 1]] >= weights[indices[i]]);
});
