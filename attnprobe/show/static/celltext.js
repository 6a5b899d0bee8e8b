/** Weights written into their cells, where these are large enough: the exact ones, as far as there is room. */

import { pointOf, visible } from "./viewport.js";

const ROOM = 44; // pixels that a number needs

/** Whether numbers are written at all. */
export function isWritten(view) {
  return view.pixels >= ROOM;
}

/**
 * Write them.
 * @param {function(number, number): ?number} weightAt of a query and a key; undefined or null: not known
 * @param {?function(number): number} wordOf the word of a weight's colour; null where that is not the same everywhere
 */
export function drawCells(pen, weightAt, wordOf, { view, area, origin, shape }) {
  const part = visible(view, area, shape);
  pen.save();
  pen.font = "10px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeStyle = "rgba(0, 0, 0, 0.55)"; // around each letter: readable on whatever colour
  for (let query = Math.floor(part.top); query < part.bottom; query++) {
    for (let key = Math.floor(part.left); key < part.right; key++) {
      const weight = weightAt(query, key);
      if (!weight) continue; // an empty cell is what it looks like
      const { x, y } = pointOf(view, query + 0.5, key + 0.5, area);
      const text = short(weight);
      const light = wordOf !== null && isLight(wordOf(weight));
      pen.fillStyle = light ? "#000000" : "#ffffff";
      if (!light) pen.strokeText(text, origin.x + x, origin.y + y);
      pen.fillText(text, origin.x + x, origin.y + y);
    }
  }
  pen.restore();
}

/** Whether black is read better on a colour. */
export function isLight(word) {
  return 0.299 * (word & 0xff) + 0.587 * ((word >> 8) & 0xff) + 0.114 * ((word >> 16) & 0xff) > 140;
}

/** A weight in about six letters. */
export function short(weight) {
  const size = Math.abs(weight);
  if (size >= 0.9995) return weight.toFixed(2);
  if (size >= 0.001) return weight.toFixed(3).replace("0.", ".");
  return weight.toExponential(size < 1e-9 ? 0 : 1);
}
