/** What is beside the text: how much of a row lies outside of it, its largest weights, and what the colours mean. */

import { button, h } from "./dom.js";
import { readable } from "./ordering.js";
import { levelOf, shadeOf } from "./shown.js";

/**
 * Chips above the text.
 * @param {object} it
 * @param {object} it.parts of `windows.parts`
 * @param {{at: number, weight: number}[]} it.best the largest weights of all
 * @param {(one: {at: number}) => string} it.name of a token, in quotes
 * @param {(position: number) => void} it.jump shows a token on the other side
 * @param {boolean} it.outside whether the chosen token is outside of the text
 * @param {() => void} it.back shows it
 * @returns {HTMLElement[]}
 */
export function chips({ parts, best, name, jump, outside, back }) {
  const found = [];
  if (outside) found.push(h("span", { class: "ap-share ap-strong" }, "the chosen token is outside of this text", button("show it", back)));
  const side = (part, words) => {
    if (part.count === 0) return;
    const to = part.at === null ? null : button(`go to the largest: ${part.at.toLocaleString("en-US")} ${name(part)}, ${share(part.weight)}`, () => jump(part.at), { title: readable(part.weight) });
    found.push(h("span", { class: "ap-share" }, h("b", { text: share(part.mass) }), ` ${words}`, to));
  };
  side(parts.before, "before this text");
  if (parts.before.count + parts.after.count > 0) found.push(h("span", { class: "ap-share" }, h("b", { text: share(parts.inside.mass) }), " in it"));
  side(parts.after, "after this text");
  if (best.length > 0) {
    const one = (it) =>
      h(
        "button",
        { type: "button", class: "ap-top", title: `${it.at}: ${readable(it.weight)}`, on: { click: () => jump(it.at) } },
        h("span", { class: "ap-faint", text: it.at.toLocaleString("en-US") }),
        h("bdi", { text: name(it) }),
        h("span", { class: "ap-number", text: share(it.weight) }),
      );
    found.push(h("span", { class: "ap-tops", role: "group", "aria-label": "largest weights" }, best.map(one)));
  }
  return found;
}

/** A weight in two digits. */
function share(mass) {
  if (mass < 0.0001) return readable(mass);
  if (mass < 0.095) return String(Number(mass.toPrecision(2)));
  return mass < 100 ? mass.toFixed(2) : Math.round(mass).toLocaleString("en-US");
}

/**
 * The colours of a row, from nothing to its largest weight.
 * @returns {{element: HTMLElement, update(most: number, colours: object): void}}
 */
export function legend() {
  const strip = h("span", { class: "ap-strip" });
  const most = h("span", { class: "ap-number" });
  const element = h("div", { class: "ap-keyline" }, h("span", { text: "weight 0" }), strip, most, h("span", { class: "ap-faint", text: "(square root)" }));
  function update(largest, colours) {
    element.hidden = !(largest > 0);
    most.textContent = readable(largest);
    const shade = shadeOf(colours);
    const stops = Array.from({ length: 17 }, (_, i) => `${shade(levelOf(i / 16, 1))} ${(i / 16) * 100}%`);
    strip.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  }
  return { element, update };
}
