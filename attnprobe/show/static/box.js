/** The box that was drawn on the map: its bounds, and all heads by the mass that they put there. */

import { bar } from "./bars.js";
import { button, h, replace } from "./dom.js";
import { readable } from "./ordering.js";
import { boxInWords, headName, rank, tidyBox } from "./ranking.js";

const LISTED = 40; // heads at first
const AT_ONCE = 2; // sites that are asked for at the same time
const PAUSE = 200; // milliseconds that a box stays as it is before heads are ranked
const SIDES = [
  ["queries", "from", 0],
  ["queries", "to", 1],
  ["keys", "from", 2],
  ["keys", "to", 3],
];

/**
 * The panel; its element is hidden where there is no box.
 * @param {object} app
 */
export function boxPanel(app) {
  const words = h("p", { class: "ap-box-words" });
  const fields = SIDES.map(([axis, end, place]) =>
    h("input", { type: "number", min: 0, name: `box-${axis}-${end}`, "aria-label": `${axis} ${end}`, "data-place": place, on: { change: () => edit() } }),
  );
  const line = (name, from, to) => [h("span", { class: "ap-faint", text: name }), from, h("span", { class: "ap-faint", text: "to" }), to];
  const progress = h("span", { class: "ap-faint", role: "status" });
  const stop = button("Stop", () => halt(), {});
  const again = button("Go on", () => start(), {});
  const list = h("ol", { class: "ap-ranks" });
  const all = button("Show all heads", () => {
    listed = Infinity;
    fill();
  });
  const element = h(
    "aside",
    { class: "ap-box", "aria-label": "box on the map", hidden: true },
    h("div", { class: "ap-box-title" }, h("strong", { text: "Who looks here?" }), h("span", { class: "ap-push" }), button("Clear", () => app.set({ box: null }), { title: "Take the box off the map" })),
    words,
    h("div", { class: "ap-box-sides" }, line("queries", fields[0], fields[1]), line("keys", fields[2], fields[3])),
    h("div", { class: "ap-box-progress" }, progress, stop, again),
    list,
    all,
    h("p", { class: "ap-faint ap-small", text: "Mean over the box's queries of the weight on its keys, 1 at most. A click opens a head where the map is now." }),
  );
  let answers = []; // one a site that has answered
  let waiting = []; // sites that have not been asked
  let control = new AbortController();
  let key = ""; // of what is ranked
  let timer = null;
  let listed = LISTED;

  const shape = () => [app.site().rows, app.site().columns];

  function edit() {
    const given = fields.map((field) => (field.value === "" ? Number.NaN : Number(field.value)));
    const box = tidyBox([given[0], given[1] + 1, given[2], given[3] + 1], shape());
    if (box === null) {
      app.say("a box takes four positions on the map", true);
      update(new Set(["box"]));
    } else {
      app.set({ box });
    }
  }

  /** Sites whose maps have the same queries and keys as the one on which the box was drawn. */
  function alike() {
    const { queries, keys } = app.site();
    return app.sample.sites.filter((site) => site.queries === queries && site.keys === keys && site.weights.length > 0);
  }

  function begin() {
    halt();
    answers = [];
    listed = LISTED;
    waiting = alike();
    start();
  }

  /** Ask for site after site, the one that is looked at first. */
  function start() {
    control = new AbortController();
    const { signal } = control;
    const { run, sample, box } = app.state;
    const [top, bottom, left, right] = box;
    waiting.sort((a, b) => Number(b.key === app.state.site) - Number(a.key === app.state.site));
    const one = async () => {
      while (waiting.length > 0 && !signal.aborted) {
        const site = waiting.shift();
        try {
          const { head } = await app.source.ask("mass", { run, sample, site: site.key, top, bottom, left, right }, { signal });
          if (signal.aborted) return;
          answers.push({ key: site.key, ...head });
        } catch (error) {
          if (signal.aborted || error.name === "AbortError") return;
          halt();
          app.onError(error);
          return;
        }
        fill();
      }
    };
    for (let i = 0; i < AT_ONCE; i += 1) one();
    fill();
  }

  function halt() {
    clearTimeout(timer);
    const sites = alike();
    if (!control.signal.aborted) control.abort();
    waiting = sites.filter((site) => !answers.some((answer) => answer.key === site.key));
    fill();
  }

  function fill() {
    const sites = app.sample.sites;
    const place = new Map(sites.map((site, i) => [site.key, i]));
    const held = answers.filter((one) => place.has(one.key)); // while another sample comes, those of the one before are still here
    const rows = rank(held.sort((a, b) => place.get(a.key) - place.get(b.key)));
    const total = alike().length;
    const done = answers.length === total;
    const exactly = answers.every((answer) => answer.exact) ? "exact" : "from means of cells";
    const count = (number, name) => `${number.toLocaleString("en-US")} ${name}${number === 1 ? "" : "s"}`;
    const far = done ? count(rows.length, "head") : `${count(rows.length, "head")}, ${answers.length} of ${count(total, "layer")}`;
    progress.textContent = answers.length > 0 ? `${far}, ${exactly}` : "asking ...";
    stop.hidden = done || control.signal.aborted;
    again.hidden = done || !control.signal.aborted;
    const most = rows[0]?.mass ?? 0;
    replace(list, rows.slice(0, listed).map((row) => item(row, most, sites)));
    all.hidden = rows.length <= listed;
  }

  function item({ key: site, head, mass, exact }, most, sites) {
    const current = site === app.state.site && head === app.state.head;
    const title = exact ? `${mass}, exact` : `${mass}, from means of cells`;
    const of = sites.find((one) => one.key === site);
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "ap-rank", title: `${of.label} head ${head}: ${title}`, "aria-current": current ? "true" : null, on: { click: () => app.set({ site, head }) } },
        h("span", { class: "ap-rank-name", text: headName(of, sites, head) }),
        h("span", { class: "ap-bars" }, bar(mass, most, app.colours().ramp)),
        h("span", { class: "ap-number", text: readable(mass) }),
      ),
    );
  }

  function update(changed) {
    const { run, sample, box } = app.state;
    element.hidden = box === null;
    if (box === null) {
      key = "";
      if (!control.signal.aborted) control.abort();
      clearTimeout(timer);
      return;
    }
    const site = app.site();
    const now = JSON.stringify([run, sample, box, site.queries, site.keys]);
    if (now !== key || changed.has("data")) {
      key = now;
      words.textContent = boxInWords(box);
      fields.forEach((field, i) => {
        field.value = box[i] - (i % 2);
        field.max = shape()[i >> 1] - 1;
      });
      answers = [];
      halt();
      progress.textContent = "...";
      timer = setTimeout(begin, PAUSE);
    } else if (["site", "head", "colours", "shown"].some((name) => changed.has(name))) {
      fill();
    }
  }

  /** Leaving the map stops the questions; what has been answered stays. */
  function hide() {
    if (app.state.box !== null) halt();
  }

  function show() {
    if (app.state.box !== null && key !== "" && waiting.length > 0) start();
  }

  return { element, show, hide, update };
}
