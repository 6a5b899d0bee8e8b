/** What is written under the colours of a difference. Pure. */

import { weightAt } from "./scales.js";

/**
 * Differences at both ends, half way, and in the middle.
 * @param {string} scale as of the state; by row is logarithmic here, since a difference has no row's largest
 * @param {number} low
 * @param {number} high
 * @returns {{value: number, text: string}[]} from the most negative to the most positive
 */
export function scaleMarks(scale, low, high) {
  const weight = weightAt(scale === "row" ? "log" : scale, low, high);
  const write = (value) => (value >= 0.001 ? String(Number(value.toPrecision(2))) : value.toExponential(0).replace("e-", "e−"));
  const [end, half] = [weight(1), weight(0.5)];
  return [
    { value: -end, text: `−${write(end)}` },
    { value: -half, text: `−${write(half)}` },
    { value: 0, text: "0" },
    { value: half, text: `+${write(half)}` },
    { value: end, text: `+${write(end)}` },
  ];
}
