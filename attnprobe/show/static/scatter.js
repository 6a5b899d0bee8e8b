/** What the chart of heads by two measures shows. Pure. */

import { padded } from "./axes.js";
import { KINDS, kindsOf, limitsOf, scoreOf, titleOf } from "./kinds.js";
import { spoken } from "./ticks.js";

const LABELLED = 14; // points with a name beside them
const TOLD = 500; // rows of the table in words

/** Points of heads by the measures `x` and `y`: the chosen one `here` marked, the farthest out of a kind named. */
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
  const [across, up] = [x, y].map((measure) => limitsOf(scores, measure));
  const far = (one) => Math.hypot((one.x - across[0]) / (across[1] - across[0]), (one.y - up[0]) / (up[1] - up[0]));
  const telling = points.filter((one) => one.kinds.some((kind) => kind.measure === x || kind.measure === y));
  telling.sort((one, other) => far(other) - far(one));
  [...points.filter((one) => one.strong), ...telling].slice(0, LABELLED).forEach((one, rank) => {
    if (one.label === undefined) [one.label, one.rank] = [one.item.label, rank];
  });
  points.sort((one, other) => Number(one.strong) - Number(other.strong)); // the chosen one is drawn last
  const there = KINDS.filter((kind) => points.some((one) => one.kinds[0] === kind));
  return {
    title: `Heads by ${x} and ${y}`,
    note: "click: choose one; again: open it",
    x: { kind: "linear", ...ends(padded(across)), label: titleOf(x, scores[x].unit) },
    y: { kind: "linear", ...ends(padded(up)), label: titleOf(y, scores[y].unit) },
    points,
    legend: [...there.map((kind) => ({ name: kind.name, colour: colourOf(kind) })), ...(there.length ? [{ name: "other heads", colour: colours.faint }] : [])],
    pick: ({ item }) => pick(item),
    table: { head: ["head", x, y], rows: points.slice(0, TOLD).map((one) => [one.name, spoken(one.x), spoken(one.y)]) },
  };
}

function ends([low, high]) {
  return { low, high };
}
