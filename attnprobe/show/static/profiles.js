/** The row and the column under the crosshair as bars beside a map, from the patches that are there. */

import { NUMBERS } from "./bfloat16.js";
import { PATCH } from "./patches.js";
import { scaleOf } from "./scales.js";
import { pointOf, visible } from "./viewport.js";

/**
 * The cells of a level along a row (axis 1) or a column (axis 0) of weights: [first weight, value] each; what is not there is left out.
 * @param {function(object): ?{cells: Uint16Array, shape: number[]}} find gives a patch
 */
export function profileOf(find, level, axis, other, first, last) {
  const cell = 2 ** level;
  const across = Math.floor(other / cell);
  const found = [];
  let patch = null;
  let before = -1;
  for (let at = Math.floor(first / cell); at * cell < last; at++) {
    const number = Math.floor(at / PATCH);
    if (number !== before) {
      const place = Math.floor(across / PATCH);
      patch = find(axis ? { level, down: place, across: number } : { level, down: number, across: place });
      before = number;
    }
    if (!patch) continue;
    const [row, column] = axis ? [across % PATCH, at % PATCH] : [at % PATCH, across % PATCH];
    found.push([at * cell, NUMBERS[patch.cells[row * patch.shape[1] + column]]]);
  }
  return found;
}

/**
 * Draw one profile: bars from the map's side outwards; of differences, from the middle to both sides.
 * @param {CanvasRenderingContext2D} pen
 * @param {object} options `axis`, `cells` of profileOf, `level`, `view`, `area`, `origin`, `frame`, `room` pixels, `limits`, `scale`, `signed`, `skip`
 */
export function drawProfile(pen, { axis, cells, level, view, area, origin, frame, room, limits, scale, signed, skip, colours }) {
  const place = placing(cells, { limits, scale, signed, skip });
  const base = (axis ? frame.y + frame.height : frame.x + frame.width) + 6 + (signed ? room / 2 : 0);
  const size = signed ? room / 2 : room;
  const long = 2 ** level * view.pixels;
  const wide = Math.max(long - (long > 4 ? 1 : 0), 0.75);
  pen.save();
  pen.beginPath();
  if (axis) pen.rect(frame.x, base - room, frame.width, 2 * room);
  else pen.rect(base - room, frame.y, 2 * room, frame.height);
  pen.clip();
  pen.fillStyle = colours.line;
  if (axis) pen.fillRect(frame.x, base - 1, frame.width, 1);
  else pen.fillRect(base - 1, frame.y, 1, frame.height);
  pen.fillStyle = colours.ink;
  pen.beginPath();
  for (const [start, value] of cells) {
    if (!value || (skip && axis && start === 0)) continue;
    const high = place(value) * size;
    const point = pointOf(view, start, start, area);
    if (axis) pen.rect(origin.x + point.x, base, wide, high);
    else pen.rect(base, origin.y + point.y, high, wide);
  }
  pen.globalAlpha = 0.6;
  pen.fill();
  pen.restore();
}

/** How long the bar of a weight is, -1 to 1; by row, of the largest in sight. */
function placing(cells, { limits, scale, signed, skip }) {
  if (signed) {
    const of = scaleOf(scale === "row" ? "log" : scale, limits.low, limits.high);
    return (value) => Math.sign(value) * of(Math.abs(value));
  }
  const of = scaleOf(scale, limits.low, limits.high);
  if (scale !== "row") return (value) => Math.max(of(value), 0.02);
  const largest = cells.reduce((most, [start, value]) => (value > most && !(skip && start === 0) ? value : most), 0);
  return (value) => Math.max(of(value / largest), 0.02);
}

/** Both profiles of a crosshair. */
export function drawProfiles(pen, cross, find, options) {
  const { view, area, shape, level } = options;
  const part = visible(view, area, shape);
  const row = profileOf(find, level, 1, cross.query, part.left, part.right);
  const column = profileOf(find, level, 0, cross.key, part.top, part.bottom);
  drawProfile(pen, { ...options, axis: 1, cells: row });
  drawProfile(pen, { ...options, axis: 0, cells: column });
}
