import assert from "node:assert/strict";
import { test } from "node:test";
import { counterpart, nearest, neighbour, placeInWords, runNames } from "../../attnprobe/show/static/places.js";
import { headName } from "../../attnprobe/show/static/ranking.js";
import { scaleMarks } from "../../attnprobe/show/static/signedscale.js";

const site = (key, layer, weights, kind = "self", part = "decoder") => ({ key, layer, kind, part, weights });
const FOUND = { id: "doc", sites: [site("a", 0, [0, 1]), site("m", 1, []), site("b", 1, [4, 7], "cross"), site("c", 2, [3])] };
const place = (key, head) => ({ run: 0, sample: 2, site: key, head });

test("the nearest place has the same site and head where they have weights", () => {
  assert.deepEqual(nearest(FOUND, place("a", 1)), place("a", 1));
  assert.deepEqual(nearest(FOUND, place("b", 6)), place("b", 7));
  assert.deepEqual(nearest(FOUND, place("m", 0)), place("a", 0));
  assert.deepEqual(nearest(FOUND, place("elsewhere", 9)), place("a", 1));
  assert.equal(nearest({ sites: [site("m", 0, [])] }, place("m", 0)), null);
});

test("before anybody has chosen, a head is compared with the next one", () => {
  assert.deepEqual(neighbour(FOUND, place("a", 0)), place("a", 1));
  assert.deepEqual(neighbour(FOUND, place("a", 1)), place("b", 4));
  assert.deepEqual(neighbour(FOUND, place("c", 3)), place("b", 7));
  const only = { sites: [site("a", 0, [2])] };
  assert.deepEqual(neighbour(only, place("a", 2)), place("a", 2));
});

test("of several runs the same head of the next one is compared", async () => {
  const second = { id: "doc", sites: [site("q", 1, [0, 1], "cross"), site("z", 0, [0, 1])] };
  const asked = [];
  const samples = { of: async (...where) => (asked.push(where), second) };
  const app = { runs: [{ samples: 3 }, { samples: 2 }], sample: FOUND, site: () => FOUND.sites[0], place: () => place("a", 1) };
  assert.deepEqual(await counterpart(app, samples), { run: 1, sample: 1, site: "z", head: 1 });
  assert.deepEqual(asked, [[1, 1]]);
  assert.deepEqual(await counterpart({ ...app, runs: [{ samples: 3 }] }, samples), place("b", 4));
  assert.deepEqual(await counterpart({ ...app, runs: [{ samples: 3 }, { samples: 0 }] }, samples), place("b", 4));
  assert.deepEqual(asked.length, 1);
});

test("no two runs have the same name", () => {
  const run = (name, title, path = null) => ({ name, title, path });
  assert.deepEqual(runNames([run("a", "gpt"), run("b", "gpt")]), ["a: gpt", "b: gpt"]);
  assert.deepEqual(runNames([run("a", "gpt", "x/a"), run("a", "gpt", "y/a")]), ["x/a: gpt", "y/a: gpt"]);
  assert.deepEqual(runNames([run("a", "gpt"), run("a", "gpt"), run("c", "gpt")]), ["1. a: gpt", "2. a: gpt", "c: gpt"]);
});

test("a place is told by no more than it takes", () => {
  const runs = [{ name: "one" }, { name: "two" }];
  assert.equal(placeInWords(place("a", 1), FOUND, runs, false), "L0 H1");
  assert.equal(placeInWords(place("a", 1), FOUND, runs, true), "L0 H1, sample doc of one");
  const twins = [{ name: "one" }, { name: "one" }];
  assert.equal(placeInWords({ ...place("a", 1), run: 1 }, FOUND, twins, true), "L0 H1, sample doc of one (run 2)");
  assert.equal(placeInWords(place("a", 1), FOUND, runs.slice(1), true), "L0 H1, sample doc");
});

test("a head's name says what tells its site from others of the layer", () => {
  const sites = [site("a", 0, [0]), site("b", 0, [0], "cross"), site("c", 1, [0], "self", "text"), site("d", 1, [0], "self", "vision"), site("e", 2, [0])];
  assert.deepEqual(sites.map((one) => headName(one, sites, 5)), ["L0 self H5", "L0 cross H5", "L1 text H5", "L1 vision H5", "L2 H5"]);
  const twins = [site("x.0", 0, [0]), site("y.0", 0, [0])];
  assert.equal(headName(twins[1], twins, 0), "y.0 H0");
});

test("differences are written under their colours", () => {
  const texts = (...scale) => scaleMarks(...scale).map(({ text }) => text);
  assert.deepEqual(texts("linear", 1e-4, 0.5), ["−0.5", "−0.25", "0", "+0.25", "+0.5"]);
  assert.deepEqual(texts("sqrt", 1e-4, 0.4), ["−0.4", "−0.1", "0", "+0.1", "+0.4"]);
  assert.deepEqual(texts("log", 1e-8, 1), ["−1", "−1e−4", "0", "+1e−4", "+1"]);
  assert.deepEqual(texts("row", 1e-8, 1), texts("log", 1e-8, 1));
});
