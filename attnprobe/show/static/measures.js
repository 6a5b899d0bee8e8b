/** What was measured, as curves over positions, a histogram of distances, and heads by two measures. */

import { padded } from "./axes.js";
import { band, binName, coordinates, edge, extent, meanOfRows } from "./binning.js";
import { chart, seriesColour } from "./chart.js";
import { button, h, labelled, options, replace, select } from "./dom.js";
import { groupsOf, headsOf } from "./grid.js";
import { KINDS, kindsOf, limitsOf, scoreOf, titleOf } from "./kinds.js";
import { curveMeasures, pick, remembering, rowsOf } from "./series.js";
import { spoken } from "./ticks.js";

const LABELLED = 12; // points with a name beside them
const NONE = "No measures were recorded in this sample. Record them with measures=\"default\", or on the command line with --keep measures.";

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
  const element = h("div", { class: "ap-measures" }, bar, none, charts);

  const source = remembering(app.source);
  let [sample, heads, scores] = [null, [], null];
  let [severalParts, turn] = [false, 0];

  /** The names that are chosen, or what is looked at first. */
  function chosen() {
    const names = Object.keys(scores ?? {});
    const first = pick(names, app.state.x, ["previous", "first_mass(1)"], 0);
    return {
      curve: pick(curveMeasures(sample).map((one) => one.name), app.state.curve, ["entropy", "max"], 0),
      x: first,
      y: pick(names, app.state.y, ["induction", "duplicate", "entropy"].filter((name) => name !== first), 1),
    };
  }

  function current() {
    return heads.find((item) => item.site === app.state.site && item.head === app.state.head) ?? null;
  }

  function controls() {
    const names = Object.keys(scores ?? {}).map((name) => [name, name]);
    const lines = curveMeasures(sample).map(({ name, axes }) => [name, `${name}, by ${axes[0]}`]);
    const now = chosen();
    options(curve, lines, now.curve);
    options(x, names, now.x);
    options(y, names, now.y);
    curve.parentElement.hidden = !lines.length;
    for (const one of [x, y]) one.parentElement.hidden = !names.length;
    const item = current();
    opens.hidden = !item?.weights;
    opens.textContent = item ? `Map of ${item.name}` : "";
    none.hidden = scores === null || sample.measures.length > 0;
    charts.hidden = !sample.measures.length;
    bar.hidden = charts.hidden;
  }

  async function drawCurves() {
    const name = chosen().curve;
    curves.element.hidden = !name;
    const item = current();
    if (!name || !item) return;
    const mine = turn;
    const { unit, axes } = sample.measures.find((one) => one.name === name);
    const found = await rowsOf(source, app.place(), sample, name);
    if (mine !== turn) return;
    const row = found.rowOf(item);
    const others = found.rows.filter((one) => one !== row);
    const colours = app.colours();
    const bins = Math.max(2, curves.width() - 80);
    const length = (row ?? others[0] ?? []).length;
    const at = coordinates(found.coords, length);
    const line = (values, share, more) => {
      const some = band(values, Math.round(bins * share));
      const count = some.mean.length;
      return { at: Float64Array.from(some.mean, (_, i) => middle(at, i, count)), ...some, ...more };
    };
    const mean = others.length ? meanOfRows(found.rows) : null;
    const thin = others.map((one) => line(one, 0.4, { colour: colours.faint, width: 1, alpha: Math.max(0.06, Math.min(0.45, 12 / others.length)) }));
    const bold = row ? [line(row, 1, { name: item.name, colour: seriesColour(0, colours.dark), width: 2, band: length > bins, told: true })] : [];
    const all = mean ? [line(mean, 1, { name: `mean of ${found.rows.length} heads`, colour: seriesColour(1, colours.dark), width: 1.5, told: true })] : [];
    const limits = extent(...thin.map((one) => one.mean), ...bold.flatMap((one) => (one.band ? [one.low, one.high] : [one.mean])), [0]) ?? [0, 1];
    const short = found.whole ? "" : "; other heads have too many numbers to draw at once";
    curves.draw(
      {
        title: `${name} by ${axes[0]}`,
        note: row ? `${item.name}, and all heads thin${short}` : `${item.name} has none`,
        x: { kind: "linear", whole: true, low: at[0] ?? 0, high: Math.max(at.at(-1) ?? 1, (at[0] ?? 0) + 1), label: `${axes[0]} position` },
        y: { kind: "linear", ...ends(padded(limits)), label: unit === "mass" ? "share of the row" : unit || name },
        lines: [...bold, ...all, ...thin].reverse(),
        table: curveTable([...bold, ...all]),
      },
      colours,
    );
  }

  async function drawDistances() {
    const found = sample.measures.find((one) => one.axes.length === 1 && one.axes[0] === "distance");
    distances.element.hidden = !found;
    const item = current();
    if (!found || !item) return;
    const mine = turn;
    const { rows, rowOf, coords } = await rowsOf(source, app.place(), sample, found.name);
    if (mine !== turn) return;
    const row = rowOf(item);
    const colours = app.colours();
    const mean = meanOfRows(rows);
    const names = coordinates(coords, mean.length).map(binName);
    const bars = [
      ...(row ? [{ name: item.name, values: row, colour: seriesColour(0, colours.dark) }] : []),
      { name: rows.length > 1 ? `mean of ${rows.length} heads` : "mean", values: mean, colour: seriesColour(1, colours.dark) },
    ];
    distances.draw(
      {
        title: "How far away a head looks",
        note: row ? "" : `${item.name} has none`,
        x: { kind: "names", names, label: "distance in tokens" },
        y: { kind: "linear", ...ends(padded(extent(mean, row ?? [], [0]))), label: "share of the row" },
        bars,
        table: { head: ["distance", ...bars.map((one) => one.name)], rows: names.map((name, i) => [name, ...bars.map((one) => spoken(one.values[i]))]) },
      },
      colours,
    );
  }

  function drawScatter() {
    const { x: across, y: up } = chosen();
    scatter.element.hidden = !across || !up;
    if (scatter.element.hidden) return;
    const colours = app.colours();
    const here = current();
    const points = heads.flatMap((item) => {
      const [left, top] = [across, up].map((measure) => scoreOf(scores, measure, item.site, item.head));
      if (left === null || top === null) return [];
      const kinds = kindsOf(scores, item.site, item.head);
      const rows = [...kinds.map((kind) => [kind.name, ""]), [across, spoken(left)], [up, spoken(top)]];
      const name = severalParts ? `${item.group.title}, ${item.name}` : item.name;
      return [{ x: left, y: top, item, name, rows, kinds, colour: kinds[0]?.colour ?? colours.faint, strong: item === here }];
    });
    const [low, high] = [across, up].map((measure) => limitsOf(scores, measure));
    const far = ({ x: left, y: top }) => Math.hypot((left - low[0]) / (low[1] - low[0]), (top - high[0]) / (high[1] - high[0]));
    const telling = [...points].filter((one) => one.kinds.some((kind) => [across, up].includes(kind.measure))).sort((one, other) => far(other) - far(one));
    for (const point of [...points.filter((one) => one.strong), ...telling.slice(0, LABELLED)]) point.label = point.item.name;
    points.sort((one, other) => Number(one.strong) - Number(other.strong));
    const there = KINDS.filter((kind) => points.some((one) => one.kinds[0] === kind));
    scatter.draw(
      {
        title: `Heads by ${across} and ${up}`,
        note: "a click chooses one, the next opens it",
        x: { kind: "linear", ...ends(padded(low)), label: titleOf(across, scores[across].unit) },
        y: { kind: "linear", ...ends(padded(high)), label: titleOf(up, scores[up].unit) },
        points,
        legend: there.map(({ name, colour }) => ({ name, colour })),
        pick: ({ item }) => app.set(item === current() && item.weights ? { view: "map" } : { site: item.site, head: item.head }),
        table: { head: ["head", across, up], rows: points.slice(0, 500).map((one) => [one.name, spoken(one.x), spoken(one.y)]) },
      },
      colours,
    );
  }

  async function load() {
    [sample, scores] = [app.sample, null];
    source.forget();
    const groups = groupsOf(sample.sites);
    severalParts = groups.length > 1;
    heads = headsOf(groups);
    const mine = sample;
    const { run, sample: place } = app.state;
    const found = sample.measures.length ? (await app.source.ask("scores", { run, sample: place })).head.scores : {};
    if (mine === sample) scores = found;
  }

  /** Draw those charts that something of what changed concerns. */
  async function draw(changed) {
    turn++;
    if (app.sample !== sample || changed.has("data")) await load();
    if (scores === null) return; // another sample is on its way
    controls();
    if (!sample.measures.length) return;
    drawScatter();
    await Promise.all([drawCurves(), drawDistances()]);
  }

  function update(changed) {
    const names = ["run", "sample", "site", "head", "curve", "x", "y", "colours", "data", "shown"];
    if (names.some((name) => changed.has(name))) draw(changed).catch(app.onError);
  }

  return { element, show() {}, hide() {}, update };
}

function ends([low, high]) {
  return { low, high };
}

/** The position in the middle of a stretch. */
function middle(at, bin, bins) {
  const [first, last] = [edge(bin, bins, at.length), edge(bin + 1, bins, at.length) - 1];
  return (at[first] + at[last]) / 2;
}

/** Some places of the curves, for those who hear them. */
function curveTable(lines) {
  const count = lines[0]?.at.length ?? 0;
  const places = [...new Set(Array.from({ length: 12 }, (_, i) => Math.round((i * (count - 1)) / 11)))].filter((i) => i >= 0);
  return {
    head: ["position", ...lines.map((one) => one.name)],
    rows: places.map((i) => [spoken(lines[0].at[i]), ...lines.map((one) => spoken(one.mean[i]))]),
  };
}
