// Bits to colours, without a number in between: a weight's 16 bits are an index into a table of 65,536 colours.
// A colour is one 32-bit word, as a canvas keeps it: red in the lowest byte, opacity in the highest.
import { NUMBERS, isMissing } from "./bfloat16.js";
import { MAPS } from "./colormaps.js";
import { scaleOf } from "./scales.js";

const FINE = 16; // steps of a colour: a row's shift is rounded to one, which is far below a colour
const STEPS = 256 * FINE;
const PAGE = { dark: "#0b0d12", light: "#ffffff" }; // as in style.css
const NONE = { dark: "#2b313d", light: "#d9dde3" };

/**
 * A colour as a word.
 * @param {string} text "#rrggbb" or "rrggbb"
 * @returns {number} opaque
 */
export function pack(text) {
  const rgb = parseInt(text.replace("#", ""), 16);
  return (0xff000000 | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

/**
 * The word of a colour as text.
 * @param {number} word
 * @returns {string} "#rrggbb"
 */
export function unpack(word) {
  const rgb = ((word & 0xff) << 16) | (word & 0xff00) | ((word >> 16) & 0xff);
  return "#" + rgb.toString(16).padStart(6, "0");
}

/**
 * 256 colours from small to large. On paper the order is turned round, so that small is light; the map of differences
 * is turned from dark on white to light on black instead, each colour keeping its hue.
 * @param {string} map of MAPS
 * @param {boolean} dark whether the page is dark
 * @returns {Uint32Array} words
 */
export function coloursOf(map, dark) {
  const words = Uint32Array.from({ length: 256 }, (_, i) => pack(MAPS[map].slice(6 * i, 6 * i + 6)));
  if (map === "difference") return dark ? words.map(invertLightness) : words;
  return dark ? words : words.reverse();
}

/**
 * The same colours for what is not drawn cell by cell.
 * @returns {function(number): string} a place between 0 and 1 as "#rrggbb"
 */
export function rampOf(map, dark) {
  const texts = Array.from(coloursOf(map, dark), unpack);
  return (t) => texts[t > 0 ? colourOf(t) : 0];
}

/**
 * The colour of every pattern of bits.
 * @param {object} options
 * @param {string} options.scale one of SCALES; "row" gives the table of shares of the row's largest
 * @param {number} options.low
 * @param {number} options.high
 * @param {string} options.map of MAPS; "difference" is of numbers of both signs, zero in the middle
 * @param {boolean} options.dark
 * @param {number} options.zero the word of exactly zero: the page's background
 * @param {number} options.none the word of what was not kept; 0 is transparent
 * @returns {Uint32Array} 65,536 words
 */
export function makeLut({ scale, low, high, map, dark, zero = pack(dark ? PAGE.dark : PAGE.light), none = pack(dark ? NONE.dark : NONE.light) }) {
  const colours = coloursOf(map, dark);
  const signed = map === "difference";
  const place = scaleOf(signed && scale === "row" ? "log" : scale, low, high);
  const table = new Uint32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const weight = NUMBERS[bits];
    if (isMissing(bits)) table[bits] = none;
    else if (weight === 0) table[bits] = zero;
    else if (signed) table[bits] = colours[colourOf((1 + Math.sign(weight) * place(Math.abs(weight))) / 2)];
    else table[bits] = colours[weight < 0 ? 0 : colourOf(place(weight))];
  }
  return table;
}

/**
 * What colours weights divided by their row's largest: every pattern's place on the logarithmic scale in small steps, to
 * which a row's shift is added.
 * @param {object} options as of makeLut
 * @returns {{steps: Int32Array, colours: Uint32Array, range: number, zero: number, none: number}}
 */
export function makeShares({ low, high, map, dark, zero, none }) {
  const range = Math.log(high) - Math.log(low);
  const steps = new Int32Array(32768);
  for (let bits = 1; bits < 0x7f80; bits++) steps[bits] = Math.round((STEPS * Math.log(NUMBERS[bits])) / range);
  steps[0x7f80] = 1 << 24; // infinite: the largest, whatever the row
  return { steps, colours: coloursOf(map, dark), range, zero, none };
}

/**
 * Colour cells by the table.
 * @param {Uint32Array} out words, one a cell
 * @param {Uint16Array} cells bits
 * @param {Uint32Array} table of makeLut
 */
export function paintCells(out, cells, table) {
  for (let i = 0; i < cells.length; i++) out[i] = table[cells[i]];
}

/**
 * Colour cells by their share of their row's largest.
 * @param {Uint32Array} out words, one a cell
 * @param {Uint16Array} cells bits, row by row
 * @param {Float32Array} largest of each row; a row of zeros or of nothing has no colour but those of its cells
 * @param {object} shares of makeShares
 */
export function paintShares(out, cells, largest, { steps, colours, range, zero, none }) {
  const width = cells.length / largest.length;
  for (let row = 0, i = 0; row < largest.length; row++) {
    const top = largest[row];
    const shift = STEPS - (top > 0 && top < Infinity ? Math.round((STEPS * Math.log(top)) / range) : 0);
    for (const stop = i + width; i < stop; i++) {
      const bits = cells[i];
      if ((bits & 0x7fff) === 0) out[i] = zero;
      else if (isMissing(bits)) out[i] = none;
      else if (bits > 0x7fff) out[i] = colours[0];
      else {
        const step = steps[bits] + shift;
        out[i] = colours[step <= 0 ? 0 : step >= STEPS ? 255 : (step / FINE) | 0];
      }
    }
  }
}

/** Of 256 equal parts of 0 to 1, the one that a place is in; matplotlib's rule. */
function colourOf(t) {
  return t >= 1 ? 255 : Math.floor(256 * t);
}

/** The same hue, dark for light. */
function invertLightness(word) {
  const parts = [word & 0xff, (word >> 8) & 0xff, (word >> 16) & 0xff];
  const shift = 255 - Math.max(...parts) - Math.min(...parts);
  return (0xff000000 | ((parts[2] + shift) << 16) | ((parts[1] + shift) << 8) | (parts[0] + shift)) >>> 0;
}
