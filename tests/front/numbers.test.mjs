import assert from "node:assert/strict";
import { test } from "node:test";
import { isLight, short } from "../../attnprobe/show/static/celltext.js";
import { pack } from "../../attnprobe/show/static/lut.js";
import { exactText, grouped, roughText } from "../../attnprobe/show/static/numbers.js";
import { cut, stepOf } from "../../attnprobe/show/static/rulers.js";
import { seeded } from "./checks.mjs";

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

test("the text of a weight says which float32 it is, with no digit too many", () => {
  const random = seeded(7);
  for (let i = 0; i < 3000; i++) {
    word[0] = Math.floor(random() * 0x3f800000);
    const value = float[0];
    const text = exactText(value);
    assert.equal(Math.fround(Number(text)), value, text);
    const digits = text.replace(/e.*/, "").replace(/^0?\./, "").replace(/^0+/, "").replace(".", "").length;
    if (digits > 1) assert.notEqual(Math.fround(Number(value.toPrecision(digits - 1))), value, text);
  }
});

test("texts that people know", () => {
  assert.equal(exactText(0), "0");
  assert.equal(exactText(1), "1");
  assert.equal(exactText(Math.fround(0.1)), "0.1");
  assert.equal(exactText(0.352294921875), "0.35229492");
  assert.equal(exactText(NaN), "not kept");
  assert.equal(roughText(0.352294921875), "0.35");
  assert.equal(roughText(4.58e-5), "4.6e-5");
  assert.equal(roughText(-0.25), "-0.25");
  assert.equal(roughText(NaN), "not kept");
  assert.equal(grouped(16384), "16,384");
});

test("numbers in cells are short", () => {
  const expected = { 1: "1.00", 0.9999: "1.00", 0.9991: ".999", 0.25: ".250", 0.00123: ".001", 0.00045: "4.5e-4", 1e-12: "1e-12", "-0.5": "-.500" };
  for (const [value, text] of Object.entries(expected)) assert.equal(short(Number(value)), text);
  const random = seeded(8);
  for (let i = 0; i < 500; i++) {
    const value = 10 ** (-12 * random());
    assert.ok(short(value).length <= 6, short(value));
    assert.ok(Math.abs(Number(short(value)) - value) <= Math.max(0.0005, 0.5 * value), `${value}: ${short(value)}`);
  }
});

test("black is for light colours", () => {
  for (const light of ["#ffffff", "#fcfdbf", "#fde725", "#fca50a"]) assert.equal(isLight(pack(light)), true, light);
  for (const dark of ["#000004", "#440154", "#b73779", "#053061"]) assert.equal(isLight(pack(dark)), false, dark);
});

test("steps are round, have room, and are the smallest that do", () => {
  const random = seeded(9);
  for (let i = 0; i < 500; i++) {
    const pixels = 2 ** (random() * 16 - 9);
    const step = stepOf(pixels, 40);
    assert.match(String(step), /^[125]0*$/);
    assert.ok(step * pixels >= 40 - 1e-6 || step === 0);
    if (step > 1) {
      const before = String(step)[0] === "5" ? (step / 5) * 2 : step / 2;
      assert.ok(before * pixels < 40, `${pixels}: ${step}`);
    }
  }
});

test("a long token is cut by letters and says so", () => {
  assert.equal(cut("Ġbaby", 60), "Ġbaby");
  assert.equal(cut("internationalization", 60), "interna…");
  assert.equal(cut("😀😀😀😀", 14), "😀…");
});
