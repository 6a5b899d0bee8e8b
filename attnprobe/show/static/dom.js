/** Elements made from text, never from HTML: what comes from a run cannot become markup. */

/**
 * An element. Attributes: `class`, `text` (its text), `on` (listeners by name), `style` (properties by name), properties
 * of the element (`value`, `checked`, `disabled`, ...), anything else an attribute; null and false leave it out.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "tabIndex", "width", "height", "hidden"]);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put other children into an element. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A labelled control: the label's text stands before it, and screen readers read it. */
export function labelled(text, control, title = null) {
  return h("label", { class: "ap-label", title }, h("span", { text }), control);
}

/** A select of `[value, text]` pairs. */
export function select(pairs, value, change, attributes = {}) {
  const element = h("select", { ...attributes, on: { change: () => change(element.value) } });
  options(element, pairs, value);
  return element;
}

/** Give a select other options. */
export function options(element, pairs, value) {
  replace(element, pairs.map(([key, text]) => h("option", { value: key, text, selected: String(key) === String(value) })));
  element.value = String(value);
}

/** A button. */
export function button(text, click, attributes = {}) {
  return h("button", { type: "button", text, ...attributes, on: { click } });
}

/** Copy text; where the clipboard is not to be had (a notebook's frame), by a selected text area. */
export async function copyText(text, host) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "ap-hidden", value: text, "aria-hidden": "true" });
    host.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A function that runs once its calls have paused for some milliseconds, with the last arguments. */
export function debounce(milliseconds, run) {
  let timer = null;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), milliseconds);
  };
}
