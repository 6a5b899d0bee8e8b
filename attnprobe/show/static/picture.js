/** The picture of a map: its patches, fetched, coloured and put where they belong; coarser ones where the right ones are to come. */

import { NUMBERS, bitsOf, isMissing } from "./bfloat16.js";
import { PatchCache, RETRY } from "./cache.js";
import { subtract } from "./differing.js";
import { h } from "./dom.js";
import { makeLut, makeShares, pack, paintCells, paintShares } from "./lut.js";
import { PATCH, ahead, coarser, levelFor, patchesOf, rectangleOf, topLevel } from "./patches.js";
import { createStrips } from "./strips.js";
import { visible } from "./viewport.js";

/** @typedef {{places: object[], how: string, shape: number[], last: number}} Subject two places: the first minus the second */

/** `changed` is called when there is more to draw. */
export function createPicture(app, { changed, bytes = 128 << 20 }) {
  const { source } = app;
  const failed = (error) => {
    app.onError(error);
    setTimeout(changed, RETRY + 100);
  };
  const strips = createStrips(source, { changed, failed });
  const cache = new PatchCache({ load, paint, changed, failed, bytes });
  const scratch = new ImageData(PATCH, PATCH);
  const hatch = { ink: null, pattern: null };
  let subject = null;
  let colouring = { made: null, version: 0 };

  const paramsOf = (place, { level, down, across }) => ({ ...place, level, down, across, how: subject.how });
  const held = (patch) => !source.has || subject.places.every((place) => source.has("patch", paramsOf(place, patch)));

  async function load(patch, signal) {
    const answers = await Promise.all(subject.places.map((place) => source.ask("patch", paramsOf(place, patch), { signal })));
    const [{ head, values }, other] = answers;
    const { cells, shape } = other ? subtract(...answers) : { cells: values, shape: head.shape };
    return { cells, shape, holes: cells.some(isMissing) };
  }

  /** The tables of the colours of now; made anew, with another version, if they changed. */
  function colours() {
    const made = app.colours();
    const { scale, skip } = app.state;
    const signed = subject.places.length > 1;
    if (colouring.made !== made || colouring.skip !== skip || colouring.signed !== signed) {
      const { low, high, dark } = made;
      const map = signed ? "difference" : app.state.map;
      const options = { scale, low, high, map, dark, zero: pack(made.background), none: 0 };
      const table = makeLut(options);
      const shares = scale === "row" && !signed ? makeShares(options) : null;
      colouring = { made, skip, signed, table, shares, version: colouring.version + 1 };
    }
    return colouring;
  }

  function paint(entry, patch) {
    const { table, shares, skip } = colouring;
    const [height, width] = entry.shape;
    const image = height === PATCH && width === PATCH ? scratch : new ImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const { level, down } = patch;
    const largest = shares && strips.get({ ...subject.places[0], level, down, how: subject.how, skip: Number(skip) });
    if (shares && largest === null) return false;
    if (largest) paintShares(words, entry.cells, largest, shares);
    else paintCells(words, entry.cells, table);
    if (skip && patch.across === 0) for (let i = 0; i < words.length; i += width) words[i] = 0;
    entry.picture ??= h("canvas", { width, height });
    entry.context ??= entry.picture.getContext("2d");
    entry.context.putImageData(image, 0, 0);
    return true;
  }

  /** Stripes, where nothing was kept or the first key is hidden. */
  function hatching(context, ink) {
    if (hatch.ink !== ink) {
      const tile = h("canvas", { width: 8, height: 8 });
      const pen = tile.getContext("2d");
      pen.strokeStyle = ink;
      pen.globalAlpha = 0.35;
      for (const at of [-4, 4]) {
        pen.moveTo(at - 1, 9);
        pen.lineTo(at + 9, -1);
      }
      pen.stroke();
      Object.assign(hatch, { ink, pattern: context.createPattern(tile, "repeat") });
    }
    return hatch.pattern;
  }

  /**
   * Draw what is seen, and ask for what is missing.
   * @returns {{level: number, missing: number, absent: boolean}} `level` is what is drawn once nothing is missing; `absent`: a finer
   *   one would be, but is not to be had here, and if no level is, `level` is null
   */
  function draw(context, view, area, origin, ratio) {
    const { shape, last, of } = subject;
    const { version, skip, made } = colours();
    const part = visible(view, area, shape);
    const level = levelFor(view.pixels * ratio, last);
    const named = (patches) => patches.map((patch) => ({ ...patch, of })).filter(held);
    const seen = patchesOf(part, shape, level).map((patch) => ({ ...patch, of }));
    const edge = (at, centre, half, start) => Math.round(((at - centre) * view.pixels + half + start) * ratio);
    const place = (entry, patch, rectangle, x, y, width, height) => {
      const left = edge(rectangle.left, view.column, area.width / 2, origin.x);
      const right = edge(rectangle.right, view.column, area.width / 2, origin.x);
      const top = edge(rectangle.top, view.row, area.height / 2, origin.y);
      const bottom = edge(rectangle.bottom, view.row, area.height / 2, origin.y);
      const size = [Math.max(right - left, 1), Math.max(bottom - top, 1)];
      if (entry.holes || (skip && patch.across === 0)) {
        context.fillStyle = hatching(context, made.ink);
        context.fillRect(left, top, ...size);
      }
      context.drawImage(entry.picture, x, y, width, height, left, top, ...size);
    };
    let missing = 0;
    let absent = false;
    let shown = level;
    context.imageSmoothingEnabled = false;
    for (const patch of seen) {
      const entry = cache.picture(patch, version);
      if (entry) {
        const [height, width] = entry.shape;
        const { top, left } = rectangleOf(patch, shape);
        const cell = 2 ** level; // a cell that is partly beyond the map is drawn whole: it may be the one that matters
        place(entry, patch, { top, left, bottom: top + height * cell, right: left + width * cell }, 0, 0, width, height);
        continue;
      }
      if (held(patch)) {
        missing++;
      } else {
        absent = true;
        const finest = coarser(patch, shape, last).find((one) => held(one.patch));
        if (finest && !cache.get({ ...finest.patch, of })) missing++;
        shown = finest && shown !== null ? Math.max(shown, finest.patch.level) : null;
      }
      for (const { patch: other, x, y, width, height } of coarser(patch, shape, last)) {
        const meanwhile = cache.picture({ ...other, of }, version);
        if (!meanwhile) continue;
        place(meanwhile, other, rectangleOf(patch, shape), x, y, width, height);
        break;
      }
    }
    const top = Math.max(topLevel(shape, last), level);
    const instead = absent ? seen.map((patch) => coarser(patch, shape, last).find((one) => held(one.patch))?.patch) : [];
    const wanted = [...named(patchesOf(part, shape, top)), ...seen.filter(held), ...named(instead.filter(Boolean))];
    cache.want(missing ? wanted : [...wanted, ...named(ahead(part, shape, level, last))]);
    return { level: shown, missing, absent };
  }

  /** The finest patch that is there of a cell, no finer than a level: {entry, level, row, column}, or null. */
  function cellAt(query, key, finest = 0) {
    for (let level = finest; level <= subject.last; level++) {
      const [row, column] = [query, key].map((at) => Math.floor(at / 2 ** level));
      const entry = cache.get({ of: subject.of, level, down: Math.floor(row / PATCH), across: Math.floor(column / PATCH) });
      if (entry) return { entry, level, row: row % PATCH, column: column % PATCH };
    }
    return null;
  }

  return {
    cache,
    draw,
    /** The weight that a cell shows, with its level, or null. */
    valueAt(query, key, finest) {
      const at = cellAt(query, key, finest);
      return at && { level: at.level, value: NUMBERS[at.entry.cells[at.row * at.entry.shape[1] + at.column]] };
    },
    /** Gives the word of a weight's colour; null by row, where it is not the same everywhere. */
    get wordOf() {
      const { table, shares } = colours();
      return shares ? null : (weight) => table[bitsOf(weight)];
    },
    /** The picture of the coarsest patch, for an overview; null if there is none yet, or several. */
    get whole() {
      const { shape, last, of } = subject;
      const level = topLevel(shape, last);
      return Math.max(...shape) <= PATCH * 2 ** level ? cache.picture({ of, level, down: 0, across: 0 }, colours().version) : null;
    },
    get subject() {
      return subject;
    },
    /** @param {Subject} next */
    set subject(next) {
      const of = JSON.stringify([next.places, next.how]);
      if (subject?.of !== of) cache.want([]);
      subject = { ...next, of };
    },
    get busy() {
      return cache.busy || strips.busy;
    },
  };
}
