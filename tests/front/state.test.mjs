import assert from "node:assert/strict";
import { test } from "node:test";
import { START, changed, difference, fromHash, toHash } from "../../attnprobe/show/static/state.js";

const FULL = {
  view: "map",
  run: 1,
  sample: 12,
  site: "decoder.block.0.layer[1], & more = #?",
  head: 7,
  row: 20_128.25,
  column: 0.5,
  span: 256,
  query: 0,
  key: 3,
  how: "mean",
  scale: "row",
  skip: true,
  map: "cividis",
  low: 1e-7,
  high: 0.25,
  sort: "first_mass(4)",
  color: "entropy",
  curve: "entropy",
  x: "previous",
  y: "induction",
  box: [0, 10, 5, 6],
  other: { run: 0, sample: 3, head: 2, site: "a,b.c" },
  mode: "minus",
  toward: "queries",
  order: "token",
};

test("a link opens what it was made of", () => {
  const state = changed(START, FULL);
  assert.deepEqual({ ...state, other: { ...state.other } }, FULL);
  const again = fromHash(toHash(state));
  assert.deepEqual(again, state);
});

test("a link holds only what differs from the first state", () => {
  assert.equal(toHash(START), "");
  assert.equal(toHash(changed(START, { head: 3 })), "#head=3");
});

for (const [name, value] of [
  ["view", "eval"],
  ["view", "__proto__"],
  ["run", -1],
  ["run", 1.5],
  ["run", "x"],
  ["head", "NaN"],
  ["head", ""],
  ["span", 0],
  ["span", Infinity],
  ["low", "-1"],
  ["map", "constructor"],
  ["scale", "eq"],
  ["skip", "yes"],
  ["box", "1,2,3"],
  ["box", "4,4,0,1"],
  ["box", "a,b,c,d"],
  ["other", "0,0,x,site"],
  ["other", "0,0,1"],
]) {
  test(`${name}=${value} is left as it was`, () => {
    const before = changed(START, FULL);
    assert.equal(changed(before, { [name]: value })[name], before[name]);
  });
}

test("unknown names and broken escapes of a link are nothing", () => {
  assert.deepEqual(fromHash("#__proto__=1&constructor=2&site=%E0%A4%A&nothing&=3&head=2"), changed(START, { head: 2 }));
});

test("null takes a choice back", () => {
  const state = changed(START, FULL);
  for (const name of ["row", "column", "span", "query", "key", "low", "high", "box", "other"]) {
    assert.equal(changed(state, { [name]: null })[name], null, name);
  }
});

test("what differs is told by name", () => {
  const state = changed(START, FULL);
  assert.deepEqual([...difference(state, changed(state, { head: 8, box: [0, 10, 5, 6], how: "max" }))], ["head", "how"]);
});

test("a state cannot be changed in place", () => {
  assert.throws(() => {
    START.head = 1;
  }, TypeError);
});
