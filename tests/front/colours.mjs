// Colours for tests/test_front.py: reads {settings, weights, largest} as JSON, writes each weight's colour as "#rrggbb".
import { readFileSync } from "node:fs";
import { bitsOf } from "../../attnprobe/show/static/bfloat16.js";
import { makeShares, makeLut, paintCells, paintShares, unpack } from "../../attnprobe/show/static/lut.js";

const { settings, weights, largest } = JSON.parse(readFileSync(0, "utf8"));
const cells = Uint16Array.from(weights, bitsOf);
const out = new Uint32Array(cells.length);
const all = { ...settings, zero: 0, none: 0 };
if (largest) paintShares(out, cells, Float32Array.from(largest), makeShares(all));
else paintCells(out, cells, makeLut(all));
console.log(JSON.stringify([...out].map(unpack)));
