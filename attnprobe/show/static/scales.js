// Weights to places between 0 (small) and 1 (large), and back. What is outside of the limits is at an end.

/** The scales, as they are named in the state. "row" is the logarithmic one of a weight divided by its row's largest. */
export const SCALES = ["log", "linear", "sqrt", "row"];

/**
 * How a scale places weights.
 * @param {string} name one of SCALES
 * @param {number} low the weight at 0 on a logarithmic scale, above zero
 * @param {number} high the weight at 1, above `low`; by row, `low / high` is the share of the row's largest that is at 0
 * @returns {function(number): number} NaN for NaN
 */
export function scaleOf(name, low, high) {
  if (name === "linear") return (weight) => clip(weight / high);
  if (name === "sqrt") return (weight) => Math.sqrt(clip(weight / high));
  const range = Math.log(high) - Math.log(low);
  if (name === "row") return (share) => clip(1 + Math.log(share) / range);
  const start = Math.log(low);
  return (weight) => clip((Math.log(weight) - start) / range);
}

/**
 * The weight at a place: what a legend writes.
 * @param {string} name one of SCALES
 * @param {number} low
 * @param {number} high
 * @returns {function(number): number} by row, a share of the row's largest
 */
export function weightAt(name, low, high) {
  if (name === "linear") return (t) => t * high;
  if (name === "sqrt") return (t) => t * t * high;
  const most = name === "row" ? 1 : high;
  return (t) => most * (high / low) ** (t - 1);
}

/**
 * Limits that a scale can use: what a person chose, else those of the weights, put right where they make no range.
 * @param {{low: ?number, high: ?number}} chosen
 * @param {?{low: number, high: number}} found of the positive weights
 * @returns {{low: number, high: number}} 0 < low < high
 */
export function limitsOf(chosen, found) {
  const high = positive(chosen.high) ?? positive(found?.high) ?? 1;
  const low = positive(chosen.low) ?? positive(found?.low) ?? high / 1e4;
  return low < high ? { low, high } : { low: high / 1e4, high };
}

/** @returns {?number} the number itself if it can be the end of a scale */
function positive(value) {
  return Number.isFinite(value) && value > 0 ? value : null;
}

function clip(t) {
  return t < 0 ? 0 : t > 1 ? 1 : t;
}
