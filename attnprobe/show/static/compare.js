/** Two heads, layers, samples or runs: side by side, or one minus the other, at the same place of both maps. */

import { allTokens } from "./attended.js";
import { button, h, replace } from "./dom.js";
import { latest } from "./latest.js";
import { rampOf } from "./lut.js";
import { createMap } from "./map.js";
import { counterpart, nearest, placeControls, placeInWords, samplesOf } from "./places.js";
import { agreement } from "./ranking.js";
import { scaleMarks } from "./signedscale.js";

const MODES = [
  ["beside", "side by side", "Both maps, which move together"],
  ["minus", "subtracted", "The left map minus the right one"],
];

/**
 * The view.
 * @param {object} app
 */
export function compareView(app) {
  const samples = samplesOf(app);
  const controls = placeControls(app, (changes) => choose(changes).catch(app.onError));
  const modes = MODES.map(([value, text, title]) => button(text, () => app.set({ mode: value }), { class: "ap-way", title, "data-value": value }));
  const names = [0, 1, 2].map(() => h("h2", { class: "ap-pane-name" }));
  const maps = {
    left: createMap(app, { places: () => [app.place()], title: () => names[0].textContent }),
    right: createMap(app, { places: () => [other()], title: () => names[1].textContent }),
    minus: createMap(app, { places: () => [app.place(), other()], title: () => names[2].textContent }),
  };
  const panes = Object.fromEntries(Object.entries(maps).map(([name, map], i) => [name, h("section", { class: "ap-pane" }, names[i], map.element)]));
  const sentence = h("p", { class: "ap-sentence", role: "status" });
  const scale = signedLegend();
  const bar = h(
    "div",
    { class: "ap-viewbar" },
    h("div", { class: "ap-ways", role: "group", "aria-label": "how to compare" }, modes),
    h("span", { class: "ap-faint", text: "with" }),
    controls.element,
    button("⇄ swap", () => swap(), { title: "The left and the right one change places" }),
    h("span", { class: "ap-push" }),
    scale.element,
  );
  const element = h("div", { class: "ap-compare" }, bar, sentence, h("div", { class: "ap-panes" }, Object.values(panes)));
  const questions = latest(10, refused);
  let shown = []; // the names of the maps that are shown
  let fits = { subtract: true, text: "" };
  let visible = false;
  let told = "";

  const other = () => app.state.other ?? app.place();

  /** Take another place; what it names is put right by what that sample has. */
  async function choose(changes) {
    const wanted = { ...other(), ...changes };
    const count = app.runs[wanted.run].samples;
    wanted.sample = Math.min(wanted.sample, Math.max(0, count - 1));
    const place = nearest(await samples.of(wanted.run, wanted.sample), wanted);
    if (place === null) throw new Error("no weights were kept of that sample, so there is no map to compare with");
    app.set({ other: place });
  }

  function swap() {
    const place = app.place();
    app.set({ ...other(), other: place });
  }

  /** Whether the two can be subtracted, and what to know about them. */
  async function judge() {
    const sides = [app.place(), other()];
    const found = await Promise.all(sides.map(({ run, sample }) => samples.of(run, sample)));
    const infos = await Promise.all(sides.map((place) => app.headInfo(place)));
    const same = sides[0].run === sides[1].run && sides[0].sample === sides[1].sample;
    const alike = infos[0].shape.join() === infos[1].shape.join();
    const texts = alike ? await Promise.all(sides.map((place, i) => tokensOf(place, found[i], same && sequencesOf(sides[0], found[0]) === sequencesOf(sides[1], found[1])))) : [null, null];
    return { found, verdict: agreement({ shape: infos[0].shape, tokens: texts[0] }, { shape: infos[1].shape, tokens: texts[1] }) };
  }

  const siteOf = (place, found) => found.sites.find(({ key }) => key === place.site);

  function sequencesOf(place, found) {
    const site = siteOf(place, found);
    return site ? `${site.queries}/${site.keys}` : "";
  }

  /** The tokens of rows and columns; null where it is known that both have the same. */
  async function tokensOf(place, found, same) {
    const site = siteOf(place, found);
    if (same || site === undefined) return null;
    const parts = [];
    for (const name of new Set([site.queries, site.keys])) {
      parts.push(await allTokens(app.tokens(place.run, place.sample, name, found.sequences[name])));
    }
    return parts.flat();
  }

  function settle({ found, verdict }) {
    fits = verdict;
    const sides = [app.place(), other()];
    const whole = sides[0].run !== sides[1].run || sides[0].sample !== sides[1].sample;
    const [left, right] = sides.map((place, i) => placeInWords(place, found[i], app.runs, whole));
    names[0].textContent = left;
    names[1].textContent = right;
    replace(names[2], h("bdi", { text: left }), " minus ", h("bdi", { text: right }));
    controls.update(sides[1], found[1]);
    sentence.textContent = fits.text;
    sentence.hidden = fits.text === "";
    arrange();
  }

  function refused(error) {
    fits = { subtract: false, text: "" };
    names[1].textContent = "";
    sentence.hidden = false;
    sentence.textContent = error.message;
    samples.of(other().run, other().sample).then((found) => controls.update(other(), found), app.onError);
    arrange();
  }

  /** Show the maps of the mode, and tell the others to rest. */
  function arrange() {
    const wanted = app.state.mode === "minus" && fits.subtract ? ["minus"] : ["left", "right"];
    for (const [name, map] of Object.entries(maps)) {
      const wants = wanted.includes(name);
      panes[name].hidden = !wants;
      if (wants && visible && !shown.includes(name)) map.show();
      if (!(wants && visible) && shown.includes(name)) map.hide();
    }
    const fresh = wanted.filter((name) => !shown.includes(name));
    shown = visible ? wanted : [];
    for (const name of fresh) maps[name].update(new Set(["shown"]));
    for (const mode of modes) mode.setAttribute("aria-pressed", String((mode.dataset.value === "minus") === wanted.includes("minus")));
    modes[1].disabled = !fits.subtract;
    scale.element.hidden = !wanted.includes("minus");
    scale.update(app.state.scale, app.colours());
  }

  function update(changed) {
    const places = JSON.stringify([app.place(), app.state.other]);
    if (changed.has("data")) samples.forget();
    if (places !== told || changed.has("data")) {
      told = places;
      questions.ask(judge, settle);
    }
    if (changed.has("mode") || changed.has("colours") || changed.has("scale")) arrange();
    for (const name of shown) maps[name].update(changed);
  }

  function show() {
    visible = true;
    told = "";
    if (app.state.other === null) begin().catch(app.onError);
    arrange();
  }

  /** Before anybody has chosen. */
  async function begin() {
    const from = JSON.stringify(app.place());
    const place = await counterpart(app, samples);
    if (visible && app.state.other === null && from === JSON.stringify(app.place())) app.set({ other: place });
  }

  function hide() {
    visible = false;
    questions.drop();
    arrange();
  }

  const focus = () => maps[shown[0]]?.focus();
  const levels = () => shown.flatMap((name) => maps[name].levels());

  return { element, show, hide, focus, levels, update };
}

/** What the colours of a difference mean. */
function signedLegend() {
  const strip = h("span", { class: "ap-strip" });
  const marks = h("span", { class: "ap-marks" });
  const element = h(
    "div",
    { class: "ap-keyline ap-signed", role: "img", hidden: true },
    h("span", { text: "right is larger" }),
    h("span", { class: "ap-marked" }, strip, marks),
    h("span", { text: "left is larger" }),
  );
  function update(scale, { low, high, dark }) {
    const ramp = rampOf("difference", dark);
    const stops = Array.from({ length: 33 }, (_, i) => `${ramp(i / 32)} ${((i / 32) * 100).toFixed(2)}%`);
    strip.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    const found = scaleMarks(scale, low, high);
    replace(marks, found.map(({ text }) => h("span", { text })));
    element.setAttribute("aria-label", `colours from ${found[0].text} (right is larger) over 0 to ${found[found.length - 1].text} (left is larger)`);
  }
  return { element, update };
}
