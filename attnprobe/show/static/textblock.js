/** A stretch of text whose tokens can be pointed at, chosen with the keyboard and coloured. */

import { h, replace } from "./dom.js";
import { asText } from "./shown.js";

let blocks = 0; // for names that are one element's in the page

/**
 * Build one.
 * @param {string} label what screen readers call it
 * @param {{hover(position: number|null): void, pick(position: number): void, key(event: KeyboardEvent): void}} listeners
 */
export function textBlock(label, listeners) {
  blocks += 1;
  const name = `ap-text-${blocks}`;
  const element = h("div", { class: "ap-text", role: "listbox", tabIndex: 0, "aria-label": label });
  let start = 0;
  let stop = 0;
  let spans = [];
  let texts = [];

  const positionOf = (event) => {
    const at = event.target.closest?.("[data-at]")?.dataset.at;
    return at === undefined ? null : Number(at);
  };
  element.addEventListener("pointerover", (event) => listeners.hover(positionOf(event)));
  element.addEventListener("pointerleave", () => listeners.hover(null));
  element.addEventListener("click", (event) => {
    const at = positionOf(event);
    if (at !== null) listeners.pick(at);
  });
  element.addEventListener("keydown", (event) => listeners.key(event));

  /** Show the tokens of a stretch; those that are not here yet are asked for, and shown when this is called again. */
  function show(first, last, tokens) {
    if (first === start && last === stop && spans.length === last - first) {
      spans.forEach((span, i) => write(span, i, tokens));
      return;
    }
    [start, stop] = [first, last];
    texts = [];
    spans = Array.from({ length: stop - start }, (_, i) =>
      h("span", { class: "ap-token", role: "option", id: `${name}-${start + i}`, "data-at": start + i }),
    );
    spans.forEach((span, i) => write(span, i, tokens));
    replace(element, spans);
    spans.forEach((span, i) => breakAfter(span, i));
    element.scrollTop = 0;
  }

  function write(span, i, tokens) {
    const token = tokens.at(start + i);
    const own = tokens.textAt(start + i);
    if (texts[i]?.token === token && texts[i].own === own) return;
    const { text, breaks } = asText(token, own, start + i);
    texts[i] = { token, own, breaks };
    span.textContent = token === "" ? "·" : text;
    span.title = `${start + i}: ${token}`;
    const thin = own === ""; // its character is the next one's, and still it can be pointed at
    span.classList.toggle("ap-thin", thin);
    if (thin) span.setAttribute("aria-label", token);
    else span.removeAttribute("aria-label");
    if (span.isConnected || span.parentNode) breakAfter(span, i);
  }

  /** A line ends after a token that is a line's end. */
  function breakAfter(span, i) {
    const has = span.nextSibling?.nodeName === "BR";
    const wants = texts[i].breaks;
    if (wants && !has) span.after(h("br"));
    if (!wants && has) span.nextSibling.remove();
  }

  /** Colour all tokens: `colourOf(position)` gives `{background, ink}`, or null for none. */
  function paint(colourOf) {
    spans.forEach((span, i) => {
      const colour = colourOf(start + i);
      span.style.backgroundColor = colour?.background ?? "";
      span.style.color = colour?.ink ?? "";
    });
  }

  /** Mark tokens with a class, and take it from all others. */
  function mark(className, positions) {
    for (const span of element.querySelectorAll(`.${className}`)) span.classList.remove(className);
    for (const position of positions) spanAt(position)?.classList.add(className);
  }

  /** Tell screen readers which token is chosen. */
  function choose(position) {
    for (const span of element.querySelectorAll('[aria-selected="true"]')) span.removeAttribute("aria-selected");
    const span = position === null ? undefined : spanAt(position);
    if (span) {
      span.setAttribute("aria-selected", "true");
      element.setAttribute("aria-activedescendant", span.id);
    } else {
      element.removeAttribute("aria-activedescendant");
    }
  }

  const spanAt = (position) => spans[position - start];

  /** Where a token is on the screen: of one over several lines, its first part. */
  function rectOf(position) {
    return spanAt(position)?.getClientRects()[0] ?? null;
  }

  /** The token a line above (-1) or below (1) of another, or null where there is no such line. */
  function beside(position, by) {
    const from = rectOf(position);
    if (from === null) return null;
    const centre = from.left + from.width / 2;
    let best = null;
    let line = null;
    for (let at = position + by; at >= start && at < stop; at += by) {
      const rect = rectOf(at);
      if (rect === null) continue;
      const off = by < 0 ? rect.bottom <= from.top + 2 : rect.top >= from.bottom - 2;
      if (!off) continue;
      if (line !== null && Math.abs(rect.top - line) > from.height / 2) break;
      line = rect.top;
      const far = Math.abs(rect.left + rect.width / 2 - centre);
      if (best === null || far < best.far) best = { at, far };
    }
    return best?.at ?? null;
  }

  /** Bring a token into sight inside of a scrolled element. */
  function reveal(position, scroller) {
    const rect = rectOf(position);
    if (rect === null) return;
    const frame = scroller.getBoundingClientRect();
    if (rect.top < frame.top + 8) scroller.scrollTop -= frame.top + 40 - rect.top;
    else if (rect.bottom > frame.bottom - 8) scroller.scrollTop += rect.bottom - frame.bottom + 40;
  }

  return {
    element,
    show,
    paint,
    mark,
    choose,
    rectOf,
    beside,
    reveal,
    get start() {
      return start;
    },
    get stop() {
      return stop;
    },
  };
}
