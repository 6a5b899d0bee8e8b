/** What was measured, as curves over positions, a histogram of distances, and heads by two measures. */

import { chart, seriesColour } from "./chart.js";
import { curveSpec, histogramSpec } from "./curves.js";
import { button, h, labelled, options, select } from "./dom.js";
import { groupsOf, headsOf } from "./grid.js";
import { scatterSpec } from "./scatter.js";
import { curveMeasures, pick, remembering, rowsOf, shownCurve } from "./series.js";

const NONE = 'No measures were recorded. Record them with measures="default" in Python, or --keep measures on the command line.';
const CONCERNS = ["run", "sample", "site", "head", "curve", "x", "y", "colours", "shown"];

export function measuresView(app) {
  const curve = select([], "", (value) => app.set({ curve: value }), { name: "curve" });
  const x = select([], "", (value) => app.set({ x: value }), { name: "x" });
  const y = select([], "", (value) => app.set({ y: value }), { name: "y" });
  const opens = button("", () => app.set({ view: "map" }), { title: "The map of this head" });
  const bar = h("div", { class: "ap-tools" }, labelled("curve", curve), labelled("heads by", x), labelled("and", y), h("span", { class: "ap-push" }), opens);
  const [curves, distances, scatter] = [chart(), chart(), chart()];
  curves.element.classList.add("ap-wide");
  const none = h("p", { class: "ap-note", text: NONE, hidden: true });
  const charts = h("div", { class: "ap-charts" }, curves.element, distances.element, scatter.element);
  const element = h("div", { class: "ap-measures", tabIndex: -1 }, bar, none, charts);

  const source = remembering(app.source, 4);
  let [sample, groups, heads, scores] = [null, [], [], null];
  let turn = 0;

  /** The names that are chosen, or what is looked at first. */
  function chosen() {
    const names = Object.keys(scores ?? {});
    const first = pick(names, app.state.x, ["previous", "first_mass(1)"], 0);
    return {
      curve: shownCurve(sample, app.state.curve),
      x: first,
      y: pick(names, app.state.y, ["induction", "duplicate", "entropy"].filter((name) => name !== first), 1),
    };
  }

  function current() {
    return heads.find((item) => item.site === app.state.site && item.head === app.state.head) ?? null;
  }

  function controls() {
    const names = Object.keys(scores).map((name) => [name, name]);
    const lines = curveMeasures(sample).map(({ name, axes }) => [name, `${name}, by ${axes[0]}`]);
    const now = chosen();
    const item = current();
    options(curve, lines, now.curve);
    options(x, names, now.x);
    options(y, names, now.y);
    curve.parentElement.hidden = !lines.length;
    for (const one of [x, y]) one.parentElement.hidden = !names.length;
    opens.hidden = !item?.weights;
    opens.textContent = item ? `Map of ${item.label}` : "";
    const nothing = !lines.length && !names.length && !histogram();
    none.hidden = !nothing;
    charts.hidden = nothing;
    bar.hidden = nothing;
  }

  /** The measure that is a histogram of distances, if there is one. */
  function histogram() {
    return sample.measures.find((one) => one.axes.length === 1 && one.axes[0] === "distance");
  }

  function colours() {
    const now = app.colours();
    return { ...now, first: seriesColour(0, now.dark), second: seriesColour(1, now.dark) };
  }

  /** Draw a chart of a measure with one axis, once its numbers are here and still wanted. */
  async function drawMeasure(into, measure, specOf) {
    const item = current();
    into.element.hidden = !measure || !item;
    if (into.element.hidden) return;
    const mine = turn;
    const axis = measure.axes[0];
    const found = await rowsOf(source, app.place(), axis, measure.name).catch((error) => {
      if (mine === turn) into.element.hidden = true;
      throw error;
    });
    if (mine !== turn) return;
    const alike = heads.filter((one) => one.group === item.group);
    const site = app.site(item.site);
    const length = axis === "query" ? site.rows : axis === "key" ? site.columns : Infinity;
    const bins = Math.max(2, into.width() - 74);
    const spec = specOf({ measure, found, item, alike, length, bins, colours: colours() });
    into.element.hidden = !(spec.lines ?? spec.bars).length; // such as distances, which cross-attention has none of
    if (!into.element.hidden) into.draw(spec, colours());
  }

  function drawScatter() {
    const { x: across, y: up } = chosen();
    scatter.element.hidden = !across || !up;
    if (scatter.element.hidden) return;
    const here = current();
    const choose = (item) => app.set(item === here && item.weights ? { view: "map" } : { site: item.site, head: item.head });
    scatter.draw(scatterSpec({ heads, scores, x: across, y: up, here, several: groups.length > 1, colours: colours(), pick: choose }), colours());
  }

  async function load() {
    [sample, scores] = [app.sample, null];
    source.forget();
    groups = groupsOf(sample.sites);
    heads = headsOf(groups);
    const mine = sample;
    const { run, sample: place } = app.state;
    const found = (await app.source.ask("scores", { run, sample: place })).head.scores;
    if (mine === sample) scores = found;
  }

  async function draw() {
    turn++;
    if (app.sample !== sample) await load();
    if (scores === null) return; // another sample is on its way
    controls();
    const curveOf = curveMeasures(sample).find((one) => one.name === chosen().curve);
    drawScatter();
    await Promise.all([drawMeasure(curves, curveOf, curveSpec), drawMeasure(distances, histogram(), histogramSpec)]);
  }

  function update(changed) {
    if (CONCERNS.some((name) => changed.has(name))) draw().catch(app.onError);
  }

  return { element, show() {}, hide() {}, focus: () => element.focus({ preventScroll: true }), update };
}
