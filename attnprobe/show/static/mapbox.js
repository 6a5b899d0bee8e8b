/** The map, and beside it what was drawn on it. */

import { boxPanel } from "./box.js";
import { h } from "./dom.js";
import { mapView } from "./map.js";

/**
 * The view.
 * @param {object} app
 */
export function mapWithBox(app) {
  const map = mapView(app);
  const box = boxPanel(app);
  const each = (name, ...values) => [map, box].forEach((one) => one[name]?.(...values));
  return {
    element: h("div", { class: "ap-mapbox" }, map.element, box.element),
    show: () => each("show"),
    hide: () => each("hide"),
    focus: () => map.focus(),
    levels: () => map.levels(),
    update: (changed) => each("update", changed),
  };
}
