/** Small pictures of heads: asked for a site at a time, shrunk to the size of a cell, coloured by a table. */

const NAN = 0x7f80; // bfloat16 bits above this are NaN; those of a positive number sort like the number

/**
 * One head's `down` x `across` cells as `high` x `wide` pixels, into `into` from `start`, `stride` from line to line.
 * Shrunk, a pixel is the largest (or the mean) of what it covers, NaN left out; enlarged, a cell is several pixels.
 */
export function pooled(bits, down, across, high, wide, how, into, start = 0, stride = wide) {
  const fold = how === "mean" ? meanOf : largestOf;
  const columns = stretches(across, wide);
  const rows = stretches(down, high);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) into[start + y * stride + x] = fold(bits, rows[y], columns[x], across);
  }
  return into;
}

function stretches(cells, pixels) {
  return Array.from({ length: pixels }, (_, i) => {
    const first = Math.floor((i * cells) / pixels);
    return [first, Math.max(first + 1, Math.ceil(((i + 1) * cells) / pixels))];
  });
}

function largestOf(bits, [top, bottom], [left, right], across) {
  let found = -1;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const one = bits[y * across + x];
      if (one <= NAN && one > found) found = one;
      else if (one >= 0x8000 && one <= 0xff80 && found < 0) found = 0; // -0, or what cannot be a weight
    }
  }
  return found < 0 ? NAN | 0x40 : found;
}

const word = new Uint32Array(1);
const real = new Float32Array(word.buffer);

function meanOf(bits, [top, bottom], [left, right], across) {
  let [sum, some] = [0, 0];
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      word[0] = bits[y * across + x] << 16;
      if (Number.isNaN(real[0])) continue;
      sum += real[0];
      some++;
    }
  }
  if (!some) return NAN | 0x40;
  real[0] = sum / some;
  return (word[0] + 0x8000) >>> 16;
}

/** The site to ask for next: the one with most cells that are seen and have no picture; null where all have one. */
export function nextSite(cells, has) {
  const wanted = new Map();
  for (const { item } of cells) {
    if (!has(item.site)) wanted.set(item.site, (wanted.get(item.site) ?? 0) + 1);
  }
  let [best, most] = [null, 0];
  for (const [site, count] of wanted) if (count > most) [best, most] = [site, count];
  return best;
}

/**
 * The pictures of a sample. `want(cells)` asks for those that are seen, one site after the other, and calls `arrived`;
 * `draw` puts one onto a canvas, coloured once for a size and a table.
 */
export function thumbnails(source, { arrived, failed }) {
  let where = null; // {run, sample, how} of what is held
  let sites = new Map(); // site -> {values, down, across, placeOf, sheet}, or null where there is no picture
  let [asking, seen] = [false, []];
  let spread = new Uint32Array(NAN + 1); // how many cells have each pattern of bits

  function want(place, cells) {
    if (where === null || ["run", "sample", "how"].some((name) => where[name] !== place[name])) {
      forget();
      where = place;
    }
    seen = cells;
    next();
  }

  function forget() {
    [where, sites, spread] = [null, new Map(), new Uint32Array(NAN + 1)];
  }

  async function next() {
    const site = asking ? null : nextSite(seen, (one) => sites.has(one));
    if (site === null) return;
    asking = true;
    const [mine, into, counts] = [where, sites, spread];
    try {
      const { head, values } = await source.ask("thumbnails", { ...mine, site });
      const [, down, across] = head.shape;
      const there = (at) => values.subarray(at * down * across, (at + 1) * down * across).some((bits) => bits <= NAN);
      const placeOf = new Map(head.heads.map((number, at) => [number, at]).filter(([, at]) => there(at)));
      for (const bits of values) if (bits <= NAN) counts[bits]++;
      into.set(site, { values, down, across, placeOf, sheet: null });
    } catch (error) {
      into.set(site, null);
      if (mine === where) failed(error);
    }
    asking = false;
    if (mine === where) arrived();
    next();
  }

  /** Put a head's picture at a place; false where it is not here (yet). `size` is in pixels of the canvas. */
  function draw(context, { site, head }, x, y, size, table) {
    const found = sites.get(site);
    const at = found?.placeOf.get(head);
    if (at === undefined) return false;
    if (found.sheet?.table !== table || found.sheet.size !== size) found.sheet = sheetOf(found, size, table, where.how);
    const line = found.sheet.lines.get(at);
    context.drawImage(found.sheet.canvas, 0, line * size, size, size, x, y, size, size);
    return true;
  }

  return { want, draw, limits: () => limitsOf(spread), forget };
}

/**
 * From which to which weight the pictures are coloured, of how many cells have each pattern of bits: all but the smallest
 * twentieth and the largest two hundredth of what is above zero, rounded outwards, so that one picture more seldom
 * changes all colours. Null where nothing is above zero.
 */
export function limitsOf(counts) {
  let sum = 0;
  for (let bits = 1; bits < NAN; bits++) sum += counts[bits];
  if (!sum) return null;
  let [low, high, max, seen] = [0, 0, 0, 0];
  for (let bits = 1; bits < NAN; bits++) {
    if (!counts[bits]) continue;
    seen += counts[bits];
    if (!low && seen > sum * 0.05) low = bits;
    if (!high && seen > sum * 0.995) high = bits;
    max = bits;
  }
  const number = (bits) => ((word[0] = bits << 16), real[0]);
  return { low: 10 ** Math.floor(Math.log10(number(low))), high: rounded(number(high)), max: rounded(number(max)) };
}

/** The next of 1, 2, 5, 10, ... above. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return Math.min(power * [1, 2, 5, 10].find((one) => one * power >= value * 0.999), Math.max(1, value));
}

/** All heads of a site below each other, in colours. */
function sheetOf({ values, down, across, placeOf }, size, table, how) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [size, size * placeOf.size];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const each = down * across;
  const lines = new Map([...placeOf.values()].map((at, line) => [at, line]));
  for (const [at, line] of lines) {
    pooled(values.subarray(at * each, (at + 1) * each), down, across, size, size, how, pixels, line * size * size);
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[pixels[i]];
  context.putImageData(image, 0, 0);
  return { canvas, size, table, lines };
}
