/** What the charts of a measure show: curves over positions, and the histogram of distances. Pure. */

import { padded } from "./axes.js";
import { band, binName, coordinates, edge, extent, meanOfRows } from "./binning.js";
import { nameOf } from "./series.js";
import { spoken } from "./ticks.js";

const THIN = 120; // stretches of the curve of a head that is not the chosen one
const MEAN = 300; // and of the mean of all

/**
 * Curves of a measure over positions, `found` as of `rowsOf`: the chosen head bold, with the band of what a pixel covers;
 * all heads like it thin, and their mean. `alike` are those heads, the chosen one `item` included.
 */
export function curveSpec({ measure, found, item, alike, length, bins, colours }) {
  const axis = measure.axes[0];
  const line = (values, at, most, more) => {
    const some = band(values, most);
    const count = some.mean.length;
    return { at: Float64Array.from(some.mean, (_, i) => middle(at, i, count)), ...some, ...more };
  };
  const { values: own, at: ownAt } = cut(found.own?.values ?? [], found.own?.coords, length);
  const others = rowsOfHeads(found, alike, length);
  const [bold, mean] = [[], []];
  if (own.length) {
    bold.push(line(own, ownAt, bins, { name: item.label, colour: colours.first, width: 2, band: own.length > bins, told: true }));
  }
  if (others.rows.length > 1) {
    const more = { name: meanName(others.rows.length), colour: colours.second, width: 2, told: true };
    mean.push(line(meanOfRows(others.rows), others.at, MEAN, more));
  }
  const alpha = Math.max(0.02, Math.min(0.4, 10 / others.rows.length));
  const rest = others.rows.filter((_, i) => alike[others.which[i]] !== item);
  const thin = rest.map((one) => line(one, others.at, THIN, { colour: colours.faint, width: 1, alpha }));
  const shown = bold.flatMap((one) => (one.band ? [one.low, one.high] : [one.mean]));
  const limits = extent(...[...thin, ...mean].map((one) => one.mean), ...shown, [0]);
  const ends = [...bold, ...mean].map((one) => one.at).filter((at) => at.length);
  const [low, high] = [Math.min(...ends.map((at) => at[0])), Math.max(...ends.map((at) => at.at(-1)))];
  return {
    title: `${measure.name} by ${axis}`,
    note: [own.length ? item.label : `not recorded of ${item.label}`, thin.length ? "all other heads thin" : ""].filter(Boolean).join(", "),
    x: { kind: "linear", whole: true, low: ends.length ? low : 0, high: ends.length && high > low ? high : low + 1, label: `${axis} position` },
    y: { kind: "linear", ...limitsOf(padded(limits)), label: measure.unit === "mass" ? "share of the row" : measure.unit || measure.name },
    lines: [...thin, ...mean, ...bold],
    table: curveTable([...bold, ...mean]),
  };
}

/** Mass by distance of the chosen head beside the mean of heads like it. */
export function histogramSpec({ found, item, alike, colours }) {
  const { rows } = rowsOfHeads(found, alike, Infinity);
  const own = found.own?.values ?? [];
  const mean = meanOfRows(rows);
  const names = coordinates(found.own?.coords ?? found.rows?.coords, own.length || mean.length).map(binName);
  const bars = [];
  if (own.length) bars.push({ name: item.label, values: own, colour: colours.first });
  if (rows.length > 1) bars.push({ name: meanName(rows.length), values: mean, colour: colours.second });
  return {
    title: "How far away a head looks",
    note: own.length ? "" : `not recorded of ${item.label}`,
    x: { kind: "names", names, label: "distance in tokens" },
    y: { kind: "linear", ...limitsOf(padded(extent(mean, own, [0]))), label: "share of the row" },
    bars,
    table: { head: ["distance", ...bars.map((one) => one.name)], rows: names.map((name, i) => [name, ...bars.map((one) => spoken(one.values[i]))]) },
  };
}

/** Arrays of some heads, those that have one, up to a position. */
function rowsOfHeads({ rows }, alike, length) {
  if (!rows) return { rows: [], at: [], which: [] };
  const which = alike.flatMap((item, i) => (rows.of.has(nameOf(item.site, item.head)) ? [i] : []));
  const parts = which.map((i) => cut(rows.of.get(nameOf(alike[i].site, alike[i].head)), rows.coords, length));
  return { rows: parts.map((part) => part.values), at: parts[0]?.at ?? [], which };
}

/** Values and their places below a length: a shorter sequence's are filled up with none. */
function cut(values, coords, length) {
  const at = coordinates(coords, values.length);
  const count = at.findIndex((one) => one >= length);
  return count < 0 ? { values, at } : { values: values.slice(0, count), at: at.slice(0, count) };
}

function meanName(heads) {
  return `mean of ${heads.toLocaleString("en-US")} heads`;
}

function limitsOf([low, high]) {
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
  const near = (line, at) => line.mean[line.at.findIndex((one) => one >= at)];
  return {
    head: ["position", ...lines.map((one) => one.name)],
    rows: places.map((i) => [spoken(lines[0].at[i]), ...lines.map((one) => spoken(near(one, lines[0].at[i])))]),
  };
}
