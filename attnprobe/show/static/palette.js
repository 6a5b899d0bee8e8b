/** The colours of all views: of weights, by the state and the limits of a head, and those of the page around them. */

import { makeLut, rampOf } from "./lut.js";
import { limitsOf } from "./scales.js";

/**
 * From which to which weight colours go; by row, shares of a row's largest.
 * @param {{scale: string, low: ?number, high: ?number}} state what a person set goes before what is found
 * @param {{low: ?number, high: ?number, max: ?number}} limits of a head's positive weights: two quantiles, and the largest; null
 *   where it has none
 * @returns {{low: number, high: number}}
 */
export function endsOf({ scale, low, high }, limits) {
  // A logarithm has room for the largest of all; up to a quantile, it would look like the many that are a hundredth of it.
  const all = { row: [limits.low / limits.high, 1], log: [limits.low, limits.max] };
  const [smallest, largest] = all[scale] ?? [limits.low, limits.high];
  const found = limitsOf({}, { low: smallest, high: largest });
  const from = low ?? found.low;
  return { low: from, high: Math.max(high ?? found.high, from * 1.0001) };
}

/**
 * What `app.colours` gives.
 * @param {object} state
 * @param {object} limits
 * @param {boolean} dark
 * @param {CSSStyleDeclaration} style of the explorer's element
 */
export function paletteOf(state, limits, dark, style) {
  const { map, scale } = state;
  const ends = endsOf(state, limits);
  const own = (name) => style.getPropertyValue(`--ap-${name}`).trim();
  return {
    table: makeLut({ map, scale, ...ends, dark }),
    ramp: rampOf(map, dark),
    background: own("background"),
    ink: own("ink"),
    faint: own("faint"),
    accent: own("accent"),
    ...ends,
    dark,
  };
}
