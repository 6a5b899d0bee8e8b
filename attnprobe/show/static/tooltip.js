/** A small box beside the pointer. Its text is text, whatever a run holds. */

import { h, replace } from "./dom.js";

const GAP = 10;

/**
 * A tooltip inside of `host`, which is positioned. `show(title, rows, {left, right, top})`: rows are `[name, value]` pairs;
 * it stands to the right of `right`, or to the left of `left`, and stays inside of the host. Screen readers are told by
 * other means.
 */
export function tooltip(host) {
  const element = h("div", { class: "ap-tip", hidden: true, "aria-hidden": "true" });
  host.append(element);
  return {
    show(title, rows, { left, right, top }) {
      replace(
        element,
        h("strong", { text: title }),
        rows.map(([name, value]) => h("div", {}, h("span", { text: name }), h("span", { class: "ap-number", text: value }))),
      );
      element.hidden = false;
      const { offsetWidth: wide, offsetHeight: high } = element;
      const fits = right + GAP + wide <= host.clientWidth;
      element.style.left = `${Math.max(0, fits ? right + GAP : left - GAP - wide)}px`;
      element.style.top = `${Math.max(0, Math.min(top, host.clientHeight - high))}px`;
    },
    hide() {
      element.hidden = true;
    },
  };
}
