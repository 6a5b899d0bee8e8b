import assert from "node:assert/strict";
import { test } from "node:test";
import { lines, python, siteName, visible } from "../../attnprobe/show/static/python.js";
import { quoted, slice } from "../../attnprobe/show/static/quoting.js";
import { START } from "../../attnprobe/show/static/state.js";

const SITE = { key: "h.5.attn", layer: 5, kind: "self", weights: [0, 1] };
const CROSS = { key: "h.5.cross", layer: 5, kind: "cross", weights: [0, 1] };
const INFO = { shape: [100, 100], rows: [[0, 100]], columns: [0, 100], last: 3 };
const side = (changes = {}) => ({ path: "runs/book", run: 0, sample: 3, id: "0", sites: [SITE], site: SITE, head: 1, info: INFO, ...changes });
const written = (state, ...sides) => lines({ ...START, ...state }, sides).trimEnd().split("\n").slice(2);

test("text is quoted so that Python reads the same", () => {
  assert.equal(quoted("runs/book"), '"runs/book"');
  assert.equal(quoted('a "b" \\ \'c\''), '"a \\"b\\" \\\\ \'c\'"');
  assert.equal(quoted("a\nb\tc\rd\0\x7f"), '"a\\nb\\tc\\rd\\x00\\x7f"');
  assert.equal(quoted("é漢😀"), '"é漢😀"');
  assert.equal(quoted("\u202e\u00a0\u2028\ud800"), '"\\u202e\\xa0\\u2028\\ud800"');
  assert.equal(quoted("\u{e0001}"), '"\\U000e0001"');
});

test("a slice leaves out what is the whole", () => {
  assert.deepEqual([slice(0, 9, 9), slice(0, 5, 9), slice(5, 9, 9), slice(2, 5, 9)], [":", ":5", "5:", "2:5"]);
});

test("a layer's number names a site where it is the only one", () => {
  assert.equal(siteName(SITE, [SITE, CROSS]), "5");
  assert.equal(siteName(CROSS, [SITE, CROSS]), '"h.5.cross"');
  assert.equal(siteName(SITE, [SITE, { ...SITE, key: "vision.5.attn" }]), '"h.5.attn"');
});

test("a row, a column, and the last row where none is chosen", () => {
  assert.deepEqual(written({ view: "lines", query: 17 }, side()), [
    'run = ap.open("runs/book")',
    'head = run.sample("0")[5, 1]',
    "head.row(17)",
  ]);
  assert.equal(written({ view: "table", toward: "queries", key: 3 }, side()).at(-1), "head.col(3)");
  assert.equal(written({ view: "table" }, side()).at(-1), "head.row(99)");
});

test("a sample whose id was not told as it is goes by its place", () => {
  assert.equal(written({ view: "map" }, side({ id: "a\\x00" }))[1], "head = run.sample(3)[5, 1]");
  assert.equal(written({ view: "map" }, side({ id: "long…" }))[1], "head = run.sample(3)[5, 1]");
});

test("a run in memory is the recorder's", () => {
  assert.match(written({ view: "lines" }, side({ path: null }))[0], /^run = rec\.run {2}#/);
});

test("a map is its part, pooled where it is large, and told where rows were not kept", () => {
  const last = (state, info = {}) => written({ view: "map", ...state }, side({ info: { ...INFO, ...info } })).at(-1);
  assert.equal(last({}), "weights = head[:, :]");
  assert.equal(last({ row: 50, column: 10, span: 20 }), "weights = head[40:60, :20]");
  assert.equal(last({ how: "mean" }, { shape: [9000, 9000], rows: [[0, 9000]], columns: [0, 9000], last: 10 }), 'weights = head.levels.read(4, slice(0, 563), slice(0, 563), "mean")');
  assert.equal(last({}, { rows: [[0, 8], [90, 100]] }), 'weights = head.levels.read(0, slice(0, 100), slice(0, 100), "max")');
  assert.match(last({ box: [5, 9, 0, 3] }), /^weights\.sum\(axis=1\)\.mean\(\)/);
});

test("a map and a comparison are read at the level that was drawn", () => {
  const info = { shape: [4096, 4096], rows: [[0, 4096]], columns: [0, 4096], last: 4 };
  const drawn = (level, changes = {}) => side({ info, level, ...changes });
  assert.equal(written({ view: "map" }, drawn(3)).at(-1), 'weights = head.levels.read(3, slice(0, 512), slice(0, 512), "max")');
  assert.equal(written({ view: "map" }, drawn(null)).at(-1), 'weights = head.levels.read(2, slice(0, 1024), slice(0, 1024), "max")');
  assert.equal(written({ view: "map", box: [0, 4, 0, 4] }, drawn(3)).at(-2), "weights = head[:4, :4]"); // a sum is of weights
  const two = written({ view: "compare" }, drawn(3), drawn(2, { head: 0 }));
  assert.deepEqual(two.slice(-2).map((line) => line.slice(0, 27)), ["left = head.levels.read(3, ", "right = other.levels.read(2"]);
});

test("the drawn levels are asked of the view", async () => {
  const sample = { id: "0", sites: [SITE], measures: [] };
  const place = () => ({ run: 0, sample: 0, site: SITE.key, head: 1 });
  const app = { state: { ...START, view: "map" }, runs: [{ name: "mine", path: null }], sample, place, headInfo: async () => INFO, levels: () => [2] };
  assert.match(await python({ ...app, source: { kind: "http" } }), /head\.levels\.read\(2, slice\(0, 25\)/);
  assert.match(await python({ ...app, source: { kind: "file" } }), /run = ap\.open\("mine"\) {2}# .*directory\n/);
});

test("what a map shows lies inside of it", () => {
  assert.deepEqual(visible({ row: null, column: null, span: null }, [30, 40]), [0, 30, 0, 40]);
  assert.deepEqual(visible({ row: 29, column: 0, span: 10 }, [30, 40]), [24, 30, 0, 5]);
  assert.deepEqual(visible({ row: 12.5, column: 3.5, span: 1 }, [30, 40]), [12, 13, 3, 4]);
});

test("two heads are read, or subtracted where their shapes agree; another run is opened", () => {
  assert.deepEqual(written({ view: "compare", mode: "minus" }, side(), side({ head: 0 })), [
    'run = ap.open("runs/book")',
    'head = run.sample("0")[5, 1]',
    'other = run.sample("0")[5, 0]',
    "difference = head[:, :] - other[:, :]",
  ]);
  const second = side({ run: 1, path: "runs/b", id: "x'\"", info: { ...INFO, shape: [50, 50], rows: [[0, 50]], columns: [0, 50] } });
  assert.deepEqual(written({ view: "compare", mode: "minus" }, side(), second), [
    'run = ap.open("runs/book")',
    'head = run.sample("0")[5, 1]',
    'second = ap.open("runs/b")',
    'other = second.sample("x\'\\"")[5, 1]',
    "left = head[:, :]",
    "right = other[:, :]",
  ]);
});

test("measures by their names; nothing is read of a head without weights", () => {
  const measures = [{ name: "received", axes: ["key"] }, { name: "entropy", axes: ["query"] }, { name: "distances", axes: ["distance"] }];
  assert.deepEqual(written({ view: "measures", x: "entropy", y: "first_mass(4)", curve: "received" }, side({ measures })).slice(1), [
    'sample = run.sample("0")',
    'sample.measures["entropy"]',
    'sample.measures["first_mass(4)"]',
    "head = sample[5, 1]",
    'head.measures["received"]',
  ]);
  assert.equal(written({ view: "measures" }, side({ measures })).at(-1), 'head.measures["entropy"]'); // shown before one is chosen
  assert.equal(written({ view: "measures" }, side({ measures: [] })).at(-1), "sample[5, 1]");
  assert.equal(written({ view: "map" }, side({ info: null })).at(-1), "head");
});
