/** A small chart on a canvas: curves with bands, bars, or points; what it shows is also a table for screen readers. */

import { drawAxes, scaleOf } from "./axes.js";
import { nearest } from "./binning.js";
import { drawBars, drawGuides, drawLine, drawPoint, drawPoints } from "./chartmarks.js";
import { h, replace } from "./dom.js";
import { short } from "./ticks.js";
import { tooltip } from "./tooltip.js";

const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const REACH = 24; // pixels from which a point is taken for meant

/** Blue, vermillion, green, purple of Okabe and Ito, which colour-blind readers can tell apart. */
export function seriesColour(number, dark) {
  const light = ["#0072b2", "#c44a00", "#007a5a", "#a3497c"];
  return (dark ? ["#56b4e9", "#f0894a", "#2bc295", "#e19ac3"] : light)[number % light.length];
}

/**
 * A chart. Gives `{element, draw(spec, colours), width()}`; it draws itself again when its size changes.
 *
 * A spec: `x`, `y`: axes (`scaleOf`) with a `label`; and of these, what there is:
 * `lines: [{name, at: [x], mean, low, high, colour, width, alpha, band, told}]` (arrays of equal length; NaN is a gap;
 * `told`: the pointer is told its numbers), `bars: [{name, values, colour}]` over a "names" axis,
 * `points: [{x, y, name, rows, colour, letter, strong, label}]` (`rows`: what a tooltip says).
 * `guides: [{x}, {y}]`: dashed lines. `pick(point)`: a click or Enter on a point. `title`, `note`: above it. `table: {head, rows}`: the same in words.
 */
export function chart() {
  const canvas = h("canvas", { tabIndex: 0, role: "img" });
  const base = h("canvas");
  const plot = h("div", { class: "ap-plot" }, canvas);
  const title = h("h3", {});
  const legend = h("div", { class: "ap-legend" });
  const words = h("div", { class: "ap-hidden" });
  const element = h("section", { class: "ap-chart" }, title, legend, plot, words);
  const tip = tooltip(plot);
  let [spec, colours, places, box, x, y] = [null, null, [], null, null, null];
  let over = -1; // the point, bar or stretch that is pointed at

  new ResizeObserver(() => spec && paint()).observe(plot);
  canvas.addEventListener("pointermove", (event) => point(event.offsetX, event.offsetY));
  canvas.addEventListener("pointerleave", () => aim(-1));
  canvas.addEventListener("blur", () => aim(-1));
  canvas.addEventListener("click", (event) => {
    point(event.offsetX, event.offsetY);
    if (spec.points && over >= 0) spec.pick?.(spec.points[over]);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && spec) {
      event.preventDefault();
      aim(stepped(step));
    } else if (event.key === "Enter" && spec?.points && over >= 0) spec.pick?.(spec.points[over]);
  });

  function draw(next, now) {
    [spec, colours, over] = [next, { ...now, line: lineColour(now), font: FONT }, -1];
    tip.hide();
    replace(title, spec.title, spec.note ? h("span", { class: "ap-faint", text: ` ${spec.note}` }) : null);
    const told = [...[...(spec.lines ?? [])].reverse(), ...(spec.bars ?? []), ...(spec.legend ?? [])];
    replace(legend, told.filter((one) => one.name).map(swatch));
    legend.hidden = !legend.childElementCount;
    canvas.setAttribute("aria-label", `${spec.title}: ${spec.y.label} by ${spec.x.label}. The same as a table follows.`);
    replace(words, table(spec));
    paint();
  }

  /** Draw all but what is pointed at, once for a spec and a size. */
  function paint() {
    const { clientWidth: width, clientHeight: height } = plot;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    for (const one of [canvas, base]) [one.width, one.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = base.getContext("2d");
    context.scale(ratio, ratio);
    box = { left: 62, top: 8, right: width - 12, bottom: height - 42 };
    x = scaleOf(spec.x, box.left, box.right, Math.max(2, Math.floor(width / 90)));
    y = scaleOf(spec.y, box.bottom, box.top, Math.max(2, Math.floor(height / 45)));
    drawAxes(context, box, x, y, { x: spec.x.label, y: spec.y.label }, colours);
    context.save();
    context.beginPath();
    context.rect(box.left, box.top - 4, box.right - box.left + 6, box.bottom - box.top + 5);
    context.clip();
    for (const one of spec.lines ?? []) drawLine(context, one, x, y);
    drawBars(context, spec.bars ?? [], x, y);
    context.restore();
    places = (spec.points ?? []).map((one) => ({ x: x.at(one.x), y: y.at(one.y) }));
    drawGuides(context, spec.guides ?? [], x, y, box, spec, colours);
    drawPoints(context, spec.points ?? [], places, box, colours);
    mark();
  }

  /** What is drawn, and over it what is pointed at. */
  function mark() {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(base, 0, 0);
    if (over < 0) return;
    const ratio = devicePixelRatio || 1;
    context.scale(ratio, ratio);
    if (spec.points) return drawPoint(context, spec.points[over], places[over], 7, colours.ink);
    context.strokeStyle = colours.ink;
    context.globalAlpha = 0.5;
    const at = Math.round(x.at(spec.bars ? over : guide()[over])) + 0.5;
    context.strokeRect(at, box.top, 0, box.bottom - box.top);
    context.globalAlpha = 1;
  }

  function point(left, top) {
    if (!spec || !box) return;
    if (spec.points) return aim(nearest(places, left, top, REACH));
    if (left < box.left || left > box.right) return aim(-1);
    if (spec.bars) return aim(x.back(left));
    aim(nearestOf(guide(), x.back(left)));
  }

  /** The positions that the pointer stops at: those of the last line, which is drawn on top. */
  function guide() {
    return spec.lines?.at(-1)?.at ?? [];
  }

  function stepped(step) {
    if (spec.points) {
      const order = spec.points.map((_, i) => i).sort((one, other) => places[one].x - places[other].x || one - other);
      const next = order.indexOf(over) + step;
      return order[over < 0 ? 0 : Math.max(0, Math.min(order.length - 1, next))] ?? -1;
    }
    const count = spec.bars ? spec.bars[0].values.length : guide().length;
    return Math.max(0, Math.min(count - 1, over + step));
  }

  function aim(next) {
    if (next === over) return;
    over = next;
    canvas.style.cursor = spec?.points && over >= 0 ? "pointer" : "";
    if (!spec || !box) return;
    mark();
    if (over < 0) return tip.hide();
    const { name, rows, left, top } = told();
    tip.show(name, rows, { left, right: left, top });
  }

  /** What is said of what is pointed at. */
  function told() {
    if (spec.points) {
      const one = spec.points[over];
      return { name: one.name, rows: one.rows, left: places[over].x, top: places[over].y - 20 };
    }
    const series = spec.bars ?? spec.lines.filter((one) => one.told).reverse();
    const place = spec.bars ? over : guide()[over];
    const rows = series.map((one) => [one.name, short(spec.bars ? one.values[over] : one.mean[nearestOf(one.at, place)])]);
    const name = spec.bars ? spec.x.names[over] : Math.round(place).toLocaleString("en-US");
    return { name: `${spec.x.label} ${name}`, rows, left: x.at(place), top: box.top };
  }

  return { element, draw, width: () => plot.clientWidth };
}

/** The number of the nearest of some ascending positions; -1 of none. */
function nearestOf(at, value) {
  let [low, high] = [0, at.length - 1];
  while (high - low > 1) {
    const half = (low + high) >> 1;
    if (at[half] <= value) low = half;
    else high = half;
  }
  return high > low && value - at[low] > at[high] - value ? high : Math.min(low, high);
}

function lineColour({ dark }) {
  return dark ? "#ffffff1f" : "#0000001a";
}

function swatch({ name, colour, letter }) {
  return h("span", {}, h("i", { text: letter ?? "", style: { background: colour } }), name);
}

function table({ table: words }) {
  if (!words) return null;
  const row = (tag) => (cells) => h("tr", {}, cells.map((text) => h(tag, { text })));
  return h("table", {}, h("thead", {}, row("th")(words.head)), h("tbody", {}, words.rows.map(row("td"))));
}
