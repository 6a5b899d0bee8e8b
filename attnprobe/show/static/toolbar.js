/** The bar above: what is looked at, how it is coloured, and links to take away. */

import { button, copyText, h, labelled, options, select } from "./dom.js";
import { COLOUR_MAPS } from "./state.js";
import { runNames } from "./places.js";
import { python } from "./python.js";

const SCALES = [
  ["log", "log"],
  ["linear", "linear"],
  ["sqrt", "square root"],
  ["row", "per row"],
];
const POOLS = [
  ["max", "largest"],
  ["mean", "mean"],
];

/** Gives `{element, update(names), key(event)}`. */
export function toolbar(app, views) {
  const tabs = views.map(({ name, title }) =>
    button(title, () => app.set({ view: name }), { class: "ap-tab", role: "tab", "data-view": name }),
  );
  const run = select([], 0, (value) => app.set({ run: value, sample: 0 }), { name: "run" });
  const sample = h("input", { type: "number", name: "sample", min: 0, on: { change: () => app.set({ sample: sample.value }) } });
  const sampleId = h("span", { class: "ap-faint" });
  const layer = slider("layer", (at) => {
    const site = app.sample.sites[at];
    if (site) app.set({ site: site.key });
  });
  const head = slider("head", (at) => {
    const number = app.site()?.heads[at];
    if (number !== undefined) app.set({ head: number });
  });
  const scale = select(SCALES, app.state.scale, (value) => app.set({ scale: value }), { name: "scale" });
  const pool = select(POOLS, app.state.how, (value) => app.set({ how: value }), { name: "how" });
  const map = select(COLOUR_MAPS.map((one) => [one, one]), app.state.map, (value) => app.set({ map: value }), { name: "map" });
  const skip = h("input", { type: "checkbox", name: "skip", on: { change: () => app.set({ skip: skip.checked }) } });
  const limit = (name) =>
    h("input", { type: "text", name, inputmode: "decimal", size: 8, on: { change: (event) => bound(name, event.target) } });
  /** What is no limit is not taken, and does not go on standing there as if it were. */
  const bound = (name, field) => {
    app.set({ [name]: field.value });
    field.value = app.state[name] ?? "";
  };
  const low = limit("low");
  const high = limit("high");

  const runLabel = labelled("run", run);
  const sampleLabel = labelled("sample", sample);
  sampleLabel.append(sampleId);
  const copyLink = button("Copy link", () => copied(app.link(), "the link"), { title: "A link that opens what is shown now" });
  copyLink.hidden = app.source.kind !== "http";
  const element = h(
    "div",
    { class: "ap-bar" },
    h("div", { class: "ap-tabs", role: "tablist", "aria-label": "views" }, tabs),
    h("div", { class: "ap-group" }, runLabel, sampleLabel, layer.element, head.element),
    h(
      "div",
      { class: "ap-group" },
      labelled("scale", scale, "How weights become colours"),
      labelled("pool", pool, "What a cell of several weights shows"),
      labelled("colours", map),
      labelled("hide first key", skip, "Leaves the first key's column out of the picture and of each row's scale"),
      labelled("from", low, "The weight of the first colour; empty: from the weights' quantiles"),
      labelled("to", high, "The weight of the last colour; empty: from the weights' quantiles"),
      h("span", { class: "ap-push" }),
      button("Copy as Python", () => python(app).then((text) => copied(text, "Python"), app.onError), { title: "The lines that give what is shown" }),
      copyLink,
    ),
  );

  async function copied(text, what) {
    app.say((await copyText(text, element)) ? `${what} is in the clipboard` : text);
  }

  function update() {
    const { state, runs, sample: found } = app;
    for (const tab of tabs) {
      const current = tab.dataset.view === state.view;
      tab.setAttribute("aria-selected", String(current));
      tab.tabIndex = current ? 0 : -1;
    }
    runLabel.hidden = runs.length < 2;
    if (run.options.length !== runs.length) options(run, runNames(runs).map((name, at) => [at, name]), state.run);
    run.value = state.run;
    const samples = runs[state.run].samples;
    sampleLabel.hidden = samples < 2;
    sample.max = samples - 1;
    sample.value = state.sample;
    sampleId.textContent = `${found.id}, of ${samples.toLocaleString("en")}${runs[state.run].writing ? ", being written" : ""}`;
    const at = found.sites.findIndex((site) => site.key === state.site);
    const site = found.sites[at];
    const plain = site && found.sites.filter((one) => one.layer === site.layer).length === 1;
    layer.update(at, found.sites.length, site ? (plain ? String(site.layer) : site.label) : "none");
    layer.element.title = site?.key ?? "";
    const heads = site?.heads ?? [];
    head.update(heads.indexOf(state.head), heads.length, String(state.head));
    [scale.value, pool.value, map.value, skip.checked] = [state.scale, state.how, state.map, state.skip];
    low.value = state.low ?? "";
    high.value = state.high ?? "";
    const { low: from, high: to } = app.colours();
    low.placeholder = from.toExponential(1);
    high.placeholder = to.toPrecision(2);
    low.disabled = state.scale === "linear" || state.scale === "sqrt";
  }

  /** Keys that work everywhere but in a field: 1 to 6 choose a view, [ and ] a head, { and } a layer. */
  function key(event) {
    if (event.target.closest?.(".ap-tabs") && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const at = tabs.findIndex((tab) => tab.dataset.view === app.state.view);
      const next = tabs[(at + (event.key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length];
      app.set({ view: next.dataset.view });
      next.focus();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
    const view = views[Number(event.key) - 1];
    if (view) {
      app.set({ view: view.name });
      app.focus();
    } else if (event.key === "]" || event.key === "[") head.step(event.key === "]" ? 1 : -1);
    else if (event.key === "}" || event.key === "{") layer.step(event.key === "}" ? 1 : -1);
  }

  return { element, update, key };
}

/** A slider over places 0 to count - 1, with what it stands at beside it. */
function slider(name, change) {
  const range = h("input", { type: "range", name, min: 0, value: 0, "aria-label": name, on: { input: () => change(Number(range.value)) } });
  const shown = h("output", { class: "ap-number" });
  const element = labelled(name, range);
  element.append(shown);
  return {
    element,
    update(at, count, text) {
      range.max = Math.max(0, count - 1);
      range.value = at;
      range.disabled = count < 2;
      range.setAttribute("aria-valuetext", text);
      shown.textContent = text;
    },
    step(by) {
      const next = Number(range.value) + by;
      if (next >= 0 && next <= Number(range.max)) change(next);
    },
  };
}
