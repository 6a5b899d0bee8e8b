/** What is looked at: one frozen object of plain values, all of it in a link. */

export const VIEWS = ["heads", "map", "lines", "table", "measures", "compare"];
export const HOWS = ["max", "mean"];
export const SCALES = ["log", "linear", "sqrt", "row"];
export const COLOUR_MAPS = ["magma", "viridis", "cividis"];
export const MODES = ["beside", "minus"];
export const TOWARD = ["keys", "queries"];
export const ORDERS = ["position", "-position", "token", "-token", "weight", "-weight"];

const count = (value) => (Number.isInteger(Number(value)) && Number(value) >= 0 && value !== "" ? Number(value) : undefined);
const number = (value) => (value !== "" && Number.isFinite(Number(value)) ? Number(value) : undefined);
const positive = (value) => (number(value) > 0 ? Number(value) : undefined);
const text = (value) => String(value);
const flag = (value) => (value === true || value === "1" ? true : value === false || value === "0" ? false : undefined);
const one = (choices) => (value) => (choices.includes(value) ? value : undefined);
const orNull = (check) => (value) => (value === null || value === "" ? null : check(value));

function box(value) {
  const parts = (Array.isArray(value) ? value : String(value).split(",")).map(count);
  return parts.length === 4 && !parts.includes(undefined) && parts[0] < parts[1] && parts[2] < parts[3] ? parts : undefined;
}

function place(value) {
  if (typeof value === "object") return place(`${value.run},${value.sample},${value.head},${value.site}`);
  const [run, sample, head, ...site] = String(value).split(",");
  const numbers = [run, sample, head].map(count);
  if (numbers.includes(undefined) || !site.length) return undefined;
  return Object.freeze({ run: numbers[0], sample: numbers[1], site: site.join(","), head: numbers[2] });
}

/** Each name: what it is at first, and how a value is checked (undefined: refused). */
const FIELDS = {
  view: ["heads", one(VIEWS)],
  run: [0, count],
  sample: [0, count],
  site: ["", text],
  head: [0, count],
  row: [null, orNull(number)], // centre of what the map shows, in weights; null: the middle
  column: [null, orNull(number)],
  span: [null, orNull(positive)], // weights across the shorter side; null: the whole map
  query: [null, orNull(count)],
  key: [null, orNull(count)],
  how: ["max", one(HOWS)],
  scale: ["log", one(SCALES)],
  skip: [false, flag], // leave the first key out
  map: ["magma", one(COLOUR_MAPS)],
  low: [null, orNull(positive)], // limits of the colours; null: from quantiles of the weights
  high: [null, orNull(positive)],
  sort: ["", text],
  color: ["", text],
  curve: ["", text],
  x: ["", text],
  y: ["", text],
  box: [null, orNull(box)], // top, bottom, left, right; ends are behind the last
  other: [null, orNull(place)],
  mode: ["beside", one(MODES)],
  toward: ["keys", one(TOWARD)], // lines, table: what a query attends to (a row), or what attends to a key (a column)
  order: ["-weight", one(ORDERS)], // of the table; "-" for the last or the largest first
};

/** The state in which a run opens. */
export const START = Object.freeze(Object.fromEntries(Object.entries(FIELDS).map(([name, [value]]) => [name, value])));

/** A state with changes; unknown names and values that are no such thing are left out. */
export function changed(state, changes) {
  const next = { ...state };
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(FIELDS, name)) continue;
    const checked = FIELDS[name][1](value);
    if (checked !== undefined) next[name] = checked;
  }
  return Object.freeze(next);
}

/** The names of what differs. */
export function difference(before, after) {
  return new Set(Object.keys(FIELDS).filter((name) => written(before[name]) !== written(after[name])));
}

function written(value) {
  if (value === null) return "";
  if (value === true || value === false) return value ? "1" : "0";
  if (Array.isArray(value)) return value.join(",");
  if (typeof value === "object") return [value.run, value.sample, value.head, value.site].join(",");
  return typeof value === "number" ? String(Number(value.toPrecision(12))) : value;
}

/** What a link holds: all that is not as at first. */
export function toHash(state) {
  const parts = Object.keys(FIELDS)
    .filter((name) => written(state[name]) !== written(START[name]))
    .map((name) => `${name}=${encodeURIComponent(written(state[name])).replaceAll("%2C", ",")}`);
  return parts.length ? `#${parts.join("&")}` : "";
}

/** The state that a link holds; what in it is no such thing is as at first. */
export function fromHash(hash) {
  const found = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    if (at < 1) continue;
    try {
      found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1));
    } catch {
      // a broken escape in a link is nothing
    }
  }
  return changed(START, found);
}
