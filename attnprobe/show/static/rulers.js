/** What stands at the sides of a map: tokens where there is room for each, else positions at round steps. */

import { grouped } from "./numbers.js";
import { pointOf, visible } from "./viewport.js";

export const ROOM = 11; // pixels that a token needs
const FONT = "11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const GAP = 8; // pixels between the map and what is written
const LETTER = 6.7; // pixels of a letter

/** The smallest of 1, 2, 5, 10, 20, ... weights that takes some room. */
export function stepOf(pixels, room) {
  const least = room / pixels;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least - 1e-9);
}

/** The start of a text that takes some room, with a mark if it goes on. */
export function cut(text, room) {
  const letters = [...text];
  const most = Math.max(Math.floor(room / LETTER), 1);
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text;
}

/**
 * Draw both rulers and what they say of the crosshair.
 * @param {CanvasRenderingContext2D} pen in pixels of CSS
 * @param {object} options
 * @param {object} options.view
 * @param {{width: number, height: number}} options.area
 * @param {{x: number, y: number}} options.origin of the area in the canvas
 * @param {object} options.frame of what is seen of the map
 * @param {number[]} options.shape
 * @param {(?{at: function(number): string})[]} options.tokens of rows and columns
 * @param {?{query: number, key: number}} options.cross
 * @param {{query: ?number, key: ?number}} options.chosen
 * @param {{ink: string, faint: string, accent: string, background: string}} options.colours
 */
export function drawRulers(pen, options) {
  const { frame } = options;
  pen.font = FONT;
  pen.textBaseline = "middle";
  pen.direction = "ltr";
  pen.fillStyle = options.colours.faint;
  pen.textAlign = "right";
  pen.fillText("key →", frame.x - 14, frame.y - 24);
  pen.fillText("query ↓", Math.max(frame.x - 14, pen.measureText("query ↓").width + 2), frame.y - 10);
  side(pen, options, 0, frame.x - 12, (at, draw) => {
    pen.save();
    pen.translate(frame.x - GAP, options.origin.y + at);
    draw("right", -1);
    pen.restore();
  });
  side(pen, options, 1, frame.y - 12, (at, draw) => {
    pen.save();
    pen.translate(options.origin.x + at, frame.y - GAP);
    pen.rotate(-Math.PI / 2);
    draw("left", 1);
    pen.restore();
  });
}

/** One side; `put` turns the pen so that text is written from the map outwards. */
function side(pen, { view, area, shape, tokens, cross, chosen, colours }, axis, room, put) {
  const length = axis ? area.width : area.height;
  const { pixels } = view;
  const part = visible(view, area, shape);
  const [first, last] = axis ? [part.left, part.right] : [part.top, part.bottom];
  const at = (position) => {
    const point = pointOf(view, position, position, area);
    return axis ? point.x : point.y;
  };
  const named = pixels >= ROOM && tokens[axis];
  const step = named ? 1 : stepOf(pixels, axis ? 40 : 28);
  const middle = pixels >= 4 ? 0.5 : 0;
  const special = [axis ? chosen.key : chosen.query, axis ? cross?.key : cross?.query];
  const marked = special.map((position) => (position === null || position === undefined ? null : at(position + 0.5)));
  const near = (point) => marked.some((mark) => mark !== null && Math.abs(mark - point) < ROOM);
  for (let position = Math.ceil(first / step) * step; position < last; position += step) {
    const point = at(position + middle);
    if (near(point) || point < 0 || point > length) continue;
    put(point, (align, way) => {
      pen.textAlign = align;
      pen.fillStyle = named ? colours.ink : colours.faint;
      if (!named) pen.fillRect(way > 0 ? -GAP : 1, -0.5, GAP - 2, 1);
      pen.fillText(named ? cut(tokens[axis].at(position), room) : grouped(position), 0, 0);
    });
  }
  special.forEach((position, which) => {
    const point = marked[which];
    if (point === null || point < -1 || point > length + 1) return;
    put(point, (align, way) => {
      const text = label(position, tokens[axis]?.at(position) ?? "", room);
      const width = pen.measureText(text).width + 6;
      pen.fillStyle = which ? colours.ink : colours.accent;
      pen.fillRect(way > 0 ? -3 : 3 - width, -8, width, 16);
      pen.fillStyle = colours.background;
      pen.textAlign = align;
      pen.fillText(text, 0, 0);
    });
  });
}

/** A position and as much of its token as there is room for. */
function label(position, token, room) {
  const number = grouped(position);
  const left = room - 6 - (number.length + 1) * LETTER;
  return token && left >= LETTER ? `${number} ${cut(token, left)}` : number;
}
