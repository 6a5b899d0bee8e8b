/** What the colours of a map mean, beside the facts about it: from low to high, zero, and what was not kept. */

import { h, replace } from "./dom.js";
import { rampOf } from "./lut.js";
import { short } from "./ticks.js";

const STEPS = 16; // colours of the strip

/**
 * The legend in words. Pure.
 * @param {object} options
 * @param {{low: number, high: number}} options.ends from where to where colours go
 * @param {string} options.scale
 * @param {boolean} options.signed whether it is of differences
 * @returns {{low: string, high: string, zero: string, below: string, paper: string}} texts beside the strip, of zero, and what hovering says
 */
export function legendText({ ends: { low, high }, scale, signed }) {
  if (signed) {
    return {
      low: `−${short(high, 2)}`,
      high: short(high, 2),
      zero: "no difference",
      below: `Differences from ${short(low, 2)} on; larger ones than ${short(high, 2)} look like it`,
      paper: "Zero is the page: cells that are equal, or within the rounding of 16 bits, and what neither head may attend to",
    };
  }
  const of = scale === "row" ? " of the row's largest" : "";
  return {
    low: short(low, 2),
    high: short(high, 2) + of,
    zero: "zero",
    below: `Weights below ${short(low, 2)}${of} have the first colour, those above ${short(high, 2)} the last`,
    paper: "Exactly zero is the page: what may not be attended to, and what is too small for the type of the weights",
  };
}

/** Gives `{element, update(options)}`; `options` as of `legendText`, with `map`, `dark`. */
export function mapLegend() {
  const element = h("span", { class: "ap-map-legend" });
  let drawn = "";

  function update({ map, dark, ...options }) {
    const words = legendText(options);
    const key = JSON.stringify([words, map, dark]);
    if (key === drawn) return;
    drawn = key;
    const ramp = rampOf(options.signed ? "difference" : map, dark);
    const stops = Array.from({ length: STEPS + 1 }, (_, i) => ramp(i / STEPS));
    replace(
      element,
      h("span", { title: words.below }, words.low, h("i", { class: "ap-strip", style: { background: `linear-gradient(90deg, ${stops.join(", ")})` } }), words.high),
      h("span", { title: words.paper }, h("i", { class: "ap-paper" }), words.zero),
      h("span", { title: "Never drawn as zero" }, h("i", { class: "ap-paper ap-hatched" }), "not kept"),
    );
  }

  return { element, update };
}
