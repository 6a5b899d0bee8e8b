/** Axes of a small chart: numbers to pixels, ticks, grid lines and labels. */

import { linearTicks, logTicks, short } from "./ticks.js";

/**
 * A scale of an axis `{kind, low, high, names, whole}` onto pixels `from` to `to`.
 *
 * `kind` is "linear", "log" (what is not above zero is at the low end) or "names" (bars, one a name, by number).
 * Gives `{at(value), back(pixel), ticks: [{value, text}]}`.
 */
export function scaleOf(axis, from, to, wanted = 5) {
  if (axis.kind === "names") return namesScale(axis.names, from, to);
  const log = axis.kind === "log";
  const way = log ? Math.log : (value) => value;
  const back = log ? Math.exp : (value) => value;
  const [low, high] = [way(axis.low), way(axis.high)];
  const ticks = log ? logTicks(axis.low, axis.high, wanted) : linearTicks(axis.low, axis.high, wanted, axis.whole);
  return {
    at: (value) => from + (((log && !(value > axis.low) ? low : way(value)) - low) / (high - low || 1)) * (to - from),
    back: (pixel) => back(low + ((pixel - from) / (to - from || 1)) * (high - low)),
    ticks: ticks.map((value) => ({ value, text: short(value) })),
  };
}

function namesScale(names, from, to) {
  const each = (to - from) / Math.max(1, names.length);
  return {
    each,
    at: (number) => from + (number + 0.5) * each,
    back: (pixel) => Math.max(0, Math.min(names.length - 1, Math.floor((pixel - from) / each))),
    ticks: names.map((text, value) => ({ value, text })),
  };
}

/** Limits with a little room, so that nothing lies on the frame; 0 and a share's 1 stay the ends that they are. */
export function padded([low, high], share = 0.04) {
  const room = (high - low || Math.abs(high) || 1) * share;
  return [low === 0 ? 0 : low - room, high === 1 ? 1 : high + room];
}

/** Draw grid, ticks and names of both axes around a box `{left, top, right, bottom}`. */
export function drawAxes(context, box, x, y, names, colours) {
  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.faint;
  context.font = colours.font;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const { value, text } of y.ticks) {
    const at = Math.round(y.at(value)) + 0.5;
    line(context, box.left, at, box.right, at);
    context.fillText(text, box.left - 7, at);
  }
  context.textBaseline = "top";
  context.textAlign = "center";
  // Labels that would touch are left out evenly, the first one never.
  const wide = Math.max(0, ...x.ticks.map(({ text }) => context.measureText(text).width)) + 10;
  const apart = x.ticks.length > 1 ? Math.abs(x.at(x.ticks[1].value) - x.at(x.ticks[0].value)) : wide;
  const each = Math.ceil(wide / Math.max(1, apart));
  x.ticks.forEach(({ value, text }, i) => {
    const at = Math.round(x.at(value)) + 0.5;
    if (x.each === undefined) line(context, at, box.top, at, box.bottom);
    if (i % each === 0) context.fillText(text, at, box.bottom + 6);
  });
  context.strokeStyle = colours.faint;
  line(context, box.left, box.bottom + 0.5, box.right, box.bottom + 0.5);
  context.fillStyle = colours.ink;
  context.fillText(names.x, (box.left + box.right) / 2, box.bottom + 22);
  context.save();
  context.translate(box.left - 46, (box.top + box.bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.fillText(names.y, 0, 0);
  context.restore();
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
