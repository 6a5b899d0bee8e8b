/** Which heads are of which kind, in words and buttons, beside the overview. */

import { button, h, replace } from "./dom.js";
import { KINDS, kindsOf, measuredKinds, ofKind, scoreOf } from "./kinds.js";
import { short } from "./ticks.js";

const LISTED = 10; // heads of a kind that are named; a button that sorts by it has the others

/** Gives `{element, draw(heads, scores)}`; `open(item)`, `sort(measure)` and `point(item or null)` are called back. */
export function kindList({ open, sort, point }) {
  const element = h("aside", { class: "ap-kinds", "aria-label": "kinds of heads" });

  function draw(heads, scores) {
    if (scores === null) return replace(element);
    const measured = measuredKinds(scores);
    if (!measured.length) {
      const how = "Recorded with measures (attnprobe capture --keep measures), heads would be named here by what they do.";
      return replace(element, h("p", { class: "ap-faint", text: how }));
    }
    const left = measured.length < KINDS.length ? KINDS.filter((kind) => !measured.includes(kind)) : [];
    return replace(
      element,
      measured.map((kind) => section(kind, heads, scores)),
      h("p", { class: "ap-faint", text: note(measured, left) }),
    );
  }

  function section(kind, heads, scores) {
    const { found, most, score } = ofKind(kind, heads, scores);
    const chipOf = (item, text) => {
      const title = `${item.group.title}, ${item.name}: ${kind.measure} ${short(score(item), 2)}`;
      const chip = button(text, () => open(item), { class: "ap-chip", title });
      for (const event of ["pointerenter", "focus"]) chip.addEventListener(event, () => point(item));
      for (const event of ["pointerleave", "blur"]) chip.addEventListener(event, () => point(null));
      return chip;
    };
    const chips = found.slice(0, LISTED).map((item) => chipOf(item, item.label));
    if (found.length > LISTED) {
      const all = `all ${found.length.toLocaleString("en-US")}`;
      chips.push(button(all, () => sort(kind.measure), { class: "ap-chip ap-more", title: `Sort by ${kind.measure}` }));
    }
    const letter = h("i", { text: kind.letter, style: { background: kind.colour } });
    const count = found.length ? h("span", { class: "ap-faint", text: ` ${found.length.toLocaleString("en-US")}` }) : null;
    const none = h("span", { class: "ap-faint", text: `none above ${kind.threshold}${most ? "; most:" : ""}` });
    const nearest = most ? chipOf(most, `${most.label} ${short(score(most), 2)}`) : null; // no head passes, and yet one may stand out
    return h(
      "section",
      {},
      h("h3", {}, letter, kind.name, count),
      h("p", { class: "ap-faint", text: `look at ${kind.meaning}` }),
      h("div", { class: "ap-chips" }, found.length ? chips : [none, nearest]),
    );
  }

  return { element, draw };
}

function note(measured, left) {
  const thresholds = [...new Set(measured.map((kind) => kind.threshold))].join(", ");
  const missing = left.length ? ` Not measured: ${left.map((kind) => kind.name).join(", ")}.` : "";
  return `A kind is a mean above ${thresholds}, a convention; it depends on the text.${missing}`;
}

/** A head in words: its name, its kinds, its numbers. */
export function describe(item, scores, several) {
  const where = several ? `${item.group.title}, ` : "";
  const kinds = kindsOf(scores ?? {}, item.site, item.head).map((kind) => kind.name);
  const rows = Object.entries(scores ?? {}).flatMap(([measure, { unit }]) => {
    const value = scoreOf(scores, measure, item.site, item.head);
    return value === null ? [] : [[measure, `${short(value)}${unit && unit !== "mass" ? ` ${unit}` : ""}`]];
  });
  return { title: `${where}${item.name}`, kinds, rows };
}
