/** A bar behind a number: as long as its share of the largest, in the colours of the map. */

import { h } from "./dom.js";
import { levelOf } from "./shown.js";

const PALEST = 0.25; // where on the colours the shortest bars are, so that they are seen on the page

/**
 * Build one.
 * @param {number} value
 * @param {number} most the largest, whose bar is whole
 * @param {(t: number) => string} ramp
 * @returns {HTMLElement} empty where the value is not above zero
 */
export function bar(value, most, ramp) {
  const element = h("span", { class: "ap-bar-one" });
  if (!(value > 0 && most > 0)) return element;
  element.style.width = `max(1px, ${(100 * Math.min(1, value / most)).toFixed(2)}%)`;
  element.style.backgroundColor = ramp(Math.max(PALEST, levelOf(value, most)));
  return element;
}
