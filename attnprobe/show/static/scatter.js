/** What the chart of heads by two measures shows. Pure. */

import { padded } from "./axes.js";
import { extent } from "./binning.js";
import { KINDS, kindsOf, scoreOf, titleOf } from "./kinds.js";
import { spoken } from "./ticks.js";

const LABELLED = 14; // points with a name beside them
const TOLD = 500; // rows of the table in words

/** Points of heads by the measures `x` and `y`: the chosen one `here` marked, the farthest out of a kind named, thresholds dashed. */
export function scatterSpec({ heads, scores, x, y, here, several, colours, pick }) {
  const colourOf = (kind) => (colours.dark ? kind.bright : kind.colour);
  const points = heads.flatMap((item) => {
    const [left, top] = [x, y].map((measure) => scoreOf(scores, measure, item.site, item.head));
    if (left === null || top === null) return [];
    const kinds = kindsOf(scores, item.site, item.head);
    const rows = [...kinds.map((kind) => [kind.name, ""]), [x, spoken(left)], ...(x === y ? [] : [[y, spoken(top)]])];
    const name = several ? `${item.group.title}, ${item.name}` : item.name;
    return [{ x: left, y: top, item, name, rows, kinds, colour: kinds.length ? colourOf(kinds[0]) : colours.faint, strong: item === here }];
  });
  const [across, up] = [points.map((one) => one.x), points.map((one) => one.y)].map((values) => extent(values, [0]));
  const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0);
  const far = (one) => Math.hypot(share(one.x, across), share(one.y, up));
  const telling = points.filter((one) => one.kinds.some((kind) => kind.measure === x || kind.measure === y));
  telling.sort((one, other) => far(other) - far(one));
  [...points.filter((one) => one.strong), ...telling].slice(0, LABELLED).forEach((one, rank) => {
    if (one.label === undefined) [one.label, one.rank] = [one.item.label, rank];
  });
  points.sort((one, other) => Number(one.strong) - Number(other.strong)); // the chosen one is drawn last
  const named = (kind) => ({ name: kind.name, colour: colourOf(kind) });
  const there = KINDS.filter((kind) => points.some((one) => one.kinds[0] === kind));
  return {
    title: `Heads by ${x} and ${y}`,
    note: "click: choose one; again: open it",
    x: { kind: "linear", ...ends(padded(across)), label: titleOf(x, scores[x].unit) },
    y: { kind: "linear", ...ends(padded(up)), label: titleOf(y, scores[y].unit) },
    points,
    guides: [...KINDS.filter((one) => one.measure === x).map((one) => ({ x: one.threshold })), ...KINDS.filter((one) => one.measure === y).map((one) => ({ y: one.threshold }))],
    legend: there.length ? [...there.map(named), { name: "other heads", colour: colours.faint }] : [],
    pick: ({ item }) => pick(item),
    table: { head: ["head", x, y], rows: points.slice(0, TOLD).map((one) => [one.name, spoken(one.x), spoken(one.y)]) },
  };
}

function ends([low, high]) {
  return { low, high };
}
