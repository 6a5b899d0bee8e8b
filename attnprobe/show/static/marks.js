/** Lines over a map: the crosshair, the chosen row and column, the drawn box. */

import { pointOf } from "./viewport.js";

/** Lines across the map through the middle of a row and a column; either may be null. */
export function drawLines(pen, { query, key }, color, { view, area, origin, frame }, dashed = false) {
  const point = pointOf(view, (query ?? 0) + 0.5, (key ?? 0) + 0.5, area);
  pen.save();
  pen.strokeStyle = color;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.6;
  if (dashed) pen.setLineDash([4, 3]);
  pen.beginPath();
  if (query !== null && query !== undefined) {
    pen.moveTo(frame.x, origin.y + point.y);
    pen.lineTo(frame.x + frame.width, origin.y + point.y);
  }
  if (key !== null && key !== undefined) {
    pen.moveTo(origin.x + point.x, frame.y);
    pen.lineTo(origin.x + point.x, frame.y + frame.height);
  }
  pen.stroke();
  pen.restore();
}

/** The outline of one cell of a level, when it is large enough to be seen as one. */
export function drawCell(pen, { query, key }, level, color, { view, area, origin }) {
  const cell = 2 ** level;
  if (cell * view.pixels < 6) return;
  const { x, y } = pointOf(view, Math.floor(query / cell) * cell, Math.floor(key / cell) * cell, area);
  pen.strokeStyle = color;
  pen.lineWidth = 2;
  pen.strokeRect(origin.x + x, origin.y + y, cell * view.pixels, cell * view.pixels);
}

/** A box, [top, bottom, left, right] in weights. */
export function drawBox(pen, [top, bottom, left, right], color, { view, area, origin }) {
  const from = pointOf(view, top, left, area);
  const to = pointOf(view, bottom, right, area);
  pen.save();
  pen.strokeStyle = color;
  pen.fillStyle = color;
  pen.lineWidth = 2;
  pen.strokeRect(origin.x + from.x, origin.y + from.y, to.x - from.x, to.y - from.y);
  pen.globalAlpha = 0.08;
  pen.fillRect(origin.x + from.x, origin.y + from.y, to.x - from.x, to.y - from.y);
  pen.restore();
}

/** The box between two weights, both of them in it. */
export function boxOf(a, b) {
  return [
    Math.min(a.query, b.query),
    Math.max(a.query, b.query) + 1,
    Math.min(a.key, b.key),
    Math.max(a.key, b.key) + 1,
  ];
}
