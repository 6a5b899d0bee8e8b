/** Answers that an HTML file does not hold as such, from what it holds: exact weights in bands of whole rows, and patches. */

import { NUMBERS } from "./bfloat16.js";
import { PATCH, cellsOf } from "./patches.js";

const MOST = 1 << 16; // weights of one band: as many as a question for weights may be of

const missing = () =>
  new Error("this file does not hold the exact weights of this head; export it by name (1.6), with a higher --max-size, or open the run itself");

/** Rows of a band: as many whole rows as one question may ask for. `attnprobe/explorer/contents.py` counts alike. */
export function bandOf(columns) {
  return Math.max(1, Math.floor(MOST / columns));
}

/** A source that also answers what can be told of what another one holds, which has `has`. */
export function completed(source) {
  const makers = { live, row, column, weights, strip, mass };
  const headOf = ({ run, sample, site, head }) => source.ask("head", { run, sample, site, head }).then((answer) => answer.head);

  async function ask(name, params = {}, options = {}) {
    if (source.has(name, params) || !Object.hasOwn(makers, name)) return source.ask(name, params, options);
    return makers[name](params);
  }

  async function live({ run }) {
    const { runs } = (await source.ask("runs")).head;
    return { head: { samples: runs[run].samples, writing: false, stamp: runs[run].stamp }, values: null };
  }

  const bandParams = (place, top, [queries, keys]) => {
    const { run, sample, site, head } = place;
    return { run, sample, site, head, top, bottom: Math.min(top + bandOf(keys), queries), left: 0, right: keys };
  };

  /** Weights of some rows and columns, NaN where none were kept. */
  async function box(place, shape, [top, bottom], [left, right]) {
    const band = bandOf(shape[1]);
    const width = right - left;
    const values = new Float32Array((bottom - top) * width);
    for (let start = Math.floor(top / band) * band; start < bottom; start += band) {
      const params = bandParams(place, start, shape);
      if (!source.has("weights", params)) throw missing();
      const whole = (await source.ask("weights", params)).values;
      for (let row = Math.max(top, start); row < Math.min(bottom, params.bottom); row++) {
        const from = (row - start) * shape[1];
        values.set(whole.subarray(from + left, from + right), (row - top) * width);
      }
    }
    return values;
  }

  async function row(params) {
    const { shape, columns } = await headOf(params);
    return { head: { start: columns[0] }, values: await box(params, shape, [params.query, params.query + 1], columns) };
  }

  async function column(params) {
    const { shape, rows } = await headOf(params);
    const every = await box(params, shape, [0, shape[0]], [params.key, params.key + 1]);
    const kept = rows.flatMap(([start, stop]) => [...every.subarray(start, stop)]);
    return { head: { rows }, values: Float32Array.from(kept) };
  }

  async function weights(params) {
    const { top, bottom, left, right } = params;
    const { shape } = await headOf(params);
    if (!(top < bottom && bottom <= shape[0] && left < right && right <= shape[1])) throw missing();
    return { head: { shape: [bottom - top, right - left] }, values: await box(params, shape, [top, bottom], [left, right]) };
  }

  /** The largest of each row of cells of a strip of patches. */
  async function strip({ run, sample, site, head, level, down, how, skip }) {
    const place = { run, sample, site, head };
    const { shape } = await headOf(place);
    const across = cellsOf(shape[1], level);
    const height = Math.min(PATCH, cellsOf(shape[0], level) - down * PATCH);
    const largest = new Float32Array(Math.max(height, 0)).fill(NaN);
    for (let patch = 0; patch * PATCH < across; patch++) {
      const { head: told, values } = await source.ask("patch", { ...place, level, down, across: patch, how });
      const width = told.shape[1];
      for (let cell = 0; cell < values.length; cell++) {
        if (patch === 0 && cell % width < Number(skip)) continue;
        const value = NUMBERS[values[cell]];
        const at = Math.floor(cell / width);
        if (!(value <= largest[at])) largest[at] = Number.isNaN(value) ? largest[at] : value;
      }
    }
    return { head: { shape: [largest.length] }, values: largest };
  }

  /** Of each head of a site, the mean over the kept rows of a box of the sum over its columns. */
  async function mass({ run, sample, site, top, bottom, left, right }) {
    const { sites } = (await source.ask("sample", { run, sample })).head;
    const { heads, weights: drawn } = sites.find((one) => one.key === site);
    const of = async (head) => {
      if (!drawn.includes(head)) return null;
      const place = { run, sample, site, head };
      const { shape, rows, columns } = await headOf(place);
      const kept = rows.map(([start, stop]) => [Math.max(start, top), Math.min(stop, bottom)]).filter(([start, stop]) => start < stop);
      if (!kept.length || left < columns[0] || right > columns[1]) return null;
      let [sum, count] = [0, 0];
      for (const [start, stop] of kept) {
        for (const value of await box(place, shape, [start, stop], [left, right])) sum += value;
        count += stop - start;
      }
      return sum / count;
    };
    return { head: { heads, mass: await Promise.all(heads.map(of)), exact: true }, values: null };
  }

  return { ...source, ask };
}
