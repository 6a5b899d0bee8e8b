/** The whole map, small, in the corner above the diagonal, with what is seen of it; to be seen when that is not all. */

import { fitting, frameOf, visible } from "./viewport.js";

const SIDE = 96; // pixels
const GAP = 8;

/** Where it is drawn, in pixels of the canvas, or null if the whole map is seen. */
export function minimapOf(view, area, shape, origin) {
  if (view.pixels < 1.5 * fitting(shape, area) || Math.min(area.width, area.height) < 3 * SIDE) return null;
  const pixels = SIDE / Math.max(...shape);
  const frame = frameOf(view, area, shape, origin);
  const width = Math.max(shape[1] * pixels, 4);
  return { x: frame.x + frame.width - GAP - width, y: frame.y + GAP, width, height: Math.max(shape[0] * pixels, 4) };
}

/** The centre that a point of it means, or null beside it. */
export function minimapAt(frame, shape, point) {
  if (!frame) return null;
  const [x, y] = [(point.x - frame.x) / frame.width, (point.y - frame.y) / frame.height];
  return x >= 0 && x <= 1 && y >= 0 && y <= 1 ? { row: y * shape[0], column: x * shape[1] } : null;
}

/** @param {?{picture: HTMLCanvasElement}} whole the coarsest patch, if it is there */
export function drawMinimap(pen, frame, whole, { view, area, shape, colours }) {
  const { x, y, width, height } = frame;
  pen.fillStyle = colours.background;
  pen.fillRect(x - 2, y - 2, width + 4, height + 4);
  if (whole) pen.drawImage(whole.picture, x, y, width, height);
  pen.strokeStyle = colours.line;
  pen.lineWidth = 1;
  pen.strokeRect(x - 1.5, y - 1.5, width + 3, height + 3);
  const part = visible(view, area, shape);
  const [down, across] = [height / shape[0], width / shape[1]];
  const size = [Math.max((part.right - part.left) * across, 4), Math.max((part.bottom - part.top) * down, 4)];
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 2;
  pen.strokeRect(x + part.left * across - 1, y + part.top * down - 1, size[0] + 2, size[1] + 2);
}
