/** A small box beside the pointer. Its text is text, whatever a run holds. */

import { h, replace } from "./dom.js";

/**
 * A tooltip inside of `host`, which is positioned. `show(title, rows, x, y)`: rows are `[name, value]` pairs, x and y
 * pixels of the host; it stays inside of the host. Screen readers are told by other means.
 */
export function tooltip(host) {
  const element = h("div", { class: "ap-tip", hidden: true, "aria-hidden": "true" });
  host.append(element);
  return {
    show(title, rows, x, y) {
      replace(
        element,
        h("strong", { text: title }),
        rows.map(([name, value]) => h("div", {}, h("span", { text: name }), h("span", { class: "ap-number", text: value }))),
      );
      element.hidden = false;
      const { clientWidth: wide, clientHeight: high } = host;
      const [left, top] = [x + 14, y + 14];
      const fits = left + element.offsetWidth <= wide;
      element.style.left = `${Math.max(0, fits ? left : x - 10 - element.offsetWidth)}px`;
      element.style.top = `${Math.max(0, Math.min(top, high - element.offsetHeight))}px`;
    },
    hide() {
      element.hidden = true;
    },
  };
}
