/** Draws the overview: cells with pictures, frames, strips, kinds and captions, and the labels around them. */

import { GUTTER, HEADER } from "./grid.js";
import { short } from "./ticks.js";

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

/**
 * Draw what is seen of a layout, in pixels of the page.
 *
 * `view`: `{layout, shown (numbers of cells), left, top (scrolled), width, height}`. `how`: `{colours, picture(item, x,
 * y) (draws it, or gives false), valueOf(item), limits (of these values), captionOf(item), kindsOf(item), current, focused,
 * over (numbers of cells, or -1)}`.
 */
export function drawCells(context, view, how) {
  const { layout, shown, left, top, width, height } = view;
  const { colours } = how;
  context.fillStyle = colours.background;
  context.fillRect(0, 0, width, height);
  for (const i of shown) {
    const { x, y, item } = layout.cells[i];
    drawCell(context, x - left, y - top, layout, item, how, i === how.over);
  }
  for (const [i, colour, wide] of [
    [how.current, colours.ink, 2],
    [how.focused, colours.accent, 3],
  ]) {
    const cell = layout.cells[i];
    if (cell) ring(context, cell.x - left, cell.y - top, layout.size, colour, wide);
  }
  drawHeadings(context, view, colours);
  if (layout.rows.length) drawLabels(context, view, how);
}

function drawCell(context, x, y, { size, strip, caption }, item, how, over) {
  const { colours } = how;
  const value = how.valueOf(item);
  const share = Number.isFinite(value) ? Math.max(0, Math.min(1, (value - how.limits[0]) / (how.limits[1] - how.limits[0]))) : null;
  if (!how.picture(item, x, y)) {
    const filled = !item.weights && share !== null;
    context.fillStyle = filled ? colours.ramp(share) : colours.panel;
    context.fillRect(x, y, size, size);
    if (filled && size >= 34) {
      context.fillStyle = readable(colours.ramp(share));
      text(context, short(value, 2), x + size / 2, y + size / 2 + 4, 11, "center");
    }
  }
  context.lineWidth = 1;
  context.strokeStyle = over ? colours.ink : item.weights ? colours.line : colours.faint;
  if (!item.weights) context.setLineDash([3, 3]); // a summary is there, or a number, and no weights
  context.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
  context.setLineDash([]);
  if (strip) {
    context.fillStyle = colours.line;
    context.fillRect(x, y + size + 3, size, strip - 4);
    if (share !== null) {
      context.fillStyle = colours.ramp(share);
      context.fillRect(x, y + size + 3, Math.max(share > 0 ? 1 : 0, Math.round(share * size)), strip - 4);
    }
  }
  badges(context, how.kindsOf(item), x + size, y, size);
  if (!caption) return;
  const [name, number] = how.captionOf(item);
  context.fillStyle = colours.ink;
  text(context, name, x + size / 2, y + size + strip + 12, 11, "center");
  context.fillStyle = colours.faint;
  text(context, number, x + size / 2, y + size + strip + 24, 10, "center");
}

/** The letters of its kinds in the upper right corner, where a causal map is empty. */
function badges(context, kinds, right, top, size) {
  const side = size >= 40 ? 14 : 10;
  kinds.slice(0, Math.max(1, Math.floor(size / (side + 1)) - 1)).forEach((kind, i) => {
    const left = right - (i + 1) * side - i;
    context.fillStyle = kind.colour;
    context.fillRect(left, top, side, side);
    context.fillStyle = "#ffffff";
    text(context, kind.letter, left + side / 2, top + side - (side > 10 ? 3 : 1.5), side - 3, "center", "bold");
  });
}

function ring(context, x, y, size, colour, wide) {
  context.lineWidth = wide;
  context.strokeStyle = colour;
  context.strokeRect(x - wide / 2, y - wide / 2, size + wide, size + wide);
}

function drawHeadings(context, { layout, left, top, width, height }, colours) {
  for (const { y, text: title, note } of layout.headings) {
    const at = y - top + 20;
    if (at < 0 || at > height + 20) continue;
    context.fillStyle = colours.background;
    context.fillRect(0, at - 16, width, 22);
    context.fillStyle = colours.ink;
    const wide = text(context, title, Math.max(0, 8 - left) + (left > 8 ? 8 : 0), at, 12, "left", "600");
    context.fillStyle = colours.faint;
    text(context, note, 16 + wide, at, 11, "left");
  }
}

/** Layer numbers at the left and head numbers above, which stay where they are when it scrolls. */
function drawLabels(context, { layout, left, top, width, height }, { colours, over, focused }) {
  const near = layout.cells[over >= 0 ? over : focused];
  if (left > 0) {
    context.fillStyle = colours.background;
    for (const { y } of layout.rows) context.fillRect(0, y - top - 2, GUTTER - 4, layout.size + layout.strip + 4);
  }
  for (const [i, { y, label }] of layout.rows.entries()) {
    const at = y - top + layout.size / 2 + 4;
    if (at < 0 || at > height + 8) continue;
    const strong = near?.row === i;
    context.fillStyle = strong ? colours.ink : colours.faint;
    text(context, label, GUTTER - 10, at, 11, "right", strong ? "bold" : "");
  }
  context.fillStyle = colours.background;
  context.fillRect(0, 0, width, HEADER - 2);
  const each = Math.max(1, Math.ceil(18 / layout.size)); // numbers that would touch are left out
  layout.columns.forEach(({ x, text: number }, i) => {
    const strong = near && near.x === x;
    if (i % each && !strong) return;
    const at = x - left + layout.size / 2;
    if (at < GUTTER - 4) return;
    context.fillStyle = strong ? colours.ink : colours.faint;
    text(context, number, at, 13, 11, "center", strong ? "bold" : "");
  });
}

function text(context, words, x, y, size, align, weight = "") {
  context.font = `${weight} ${size}px ${FONT}`;
  context.textAlign = align;
  context.textBaseline = "alphabetic";
  context.fillText(words, x, y);
  return context.measureText(words).width;
}

/** Black or white, whichever stands out on a colour `#rrggbb`. */
export function readable(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255).map((one) => one ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000000" : "#ffffff";
}
