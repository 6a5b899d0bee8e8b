/** Ties the state, the source and the views: what is looked at lives in one place, and all that shows it is told. */

import { debounce, h, replace } from "./dom.js";
import { makeLut, rampOf } from "./lut.js";
import { START, changed, difference, fromHash, toHash } from "./state.js";
import { isDark, watchTheme } from "./theme.js";
import { toolbar } from "./toolbar.js";
import { tokensOf } from "./tokens.js";
import { VIEW_LIST } from "./views.js";

const KEPT = 200; // answers of `head` that are kept
const POLL = 2000; // milliseconds between two looks at a run that is being written
const NO_LIMITS = { low: 1e-6, high: 1, max: 1 };

/**
 * Build the explorer inside of an element.
 *
 * `settings`: `link` (the page's address holds the state), `state` (changes to the first state), `onState` (told of each
 * new state).
 */
export async function createApp(element, answering, settings = {}) {
  const source = counting(answering);
  const root = h("div", { class: "attnprobe" });
  const status = h("div", { class: "ap-status", role: "status", "aria-live": "polite" });
  const main = h("div", { class: "ap-main" });
  replace(element, root);
  replace(root, h("p", { class: "ap-note", text: "opening the run ..." }));

  const views = new Map();
  const infos = new Map();
  const sequences = new Map();
  let state = changed(settings.link ? fromHash(location.hash) : START, settings.state ?? {});
  let runs = [];
  let sample = null;
  let limits = NO_LIMITS;
  let colours = null;
  let loading = 0;
  let bar = null;

  const app = {
    element: root,
    source,
    get state() {
      return state;
    },
    get runs() {
      return runs;
    },
    get sample() {
      return sample;
    },
    get limits() {
      return limits;
    },
    site: (key = state.site) => sample.sites.find((site) => site.key === key) ?? null,
    place: () => ({ run: state.run, sample: state.sample, site: state.site, head: state.head }),
    set,
    headInfo,
    tokens,
    colours: () => (colours ??= makeColours()),
    say,
    onError,
    /** The address that opens what is shown. */
    link: () => location.href.replace(/#.*$/, "") + toHash(state),
    /** Whether nothing is waited for; what is shown is then all there is. */
    settled: () => bar !== null && source.waiting === 0,
  };

  // Browsers limit how often a page may write its address.
  const writeLink = debounce(150, () => history.replaceState(null, "", toHash(state) || location.pathname + location.search));

  function set(changes) {
    const next = changed(state, changes);
    const names = difference(state, next);
    if (!names.size) return;
    const before = state;
    state = next;
    if (!bar) return; // what opens shows it
    if (names.has("run") || names.has("sample")) {
      load().catch(onError);
      return;
    }
    fit();
    tell(difference(before, state));
  }

  /** A site and a head that are there, where the state names others. */
  function fit() {
    const site = app.site() ?? sample.sites.find((one) => one.weights.length) ?? sample.sites[0];
    if (!site) return;
    const heads = site.heads;
    const near = heads.includes(state.head) ? state.head : heads.reduce((a, b) => (Math.abs(b - state.head) < Math.abs(a - state.head) ? b : a));
    state = changed(state, { site: site.key, head: near });
  }

  async function load() {
    const turn = ++loading;
    const before = app.sample ? app.site() : null;
    const run = Math.min(state.run, runs.length - 1);
    const place = Math.max(0, Math.min(state.sample, runs[run].samples - 1));
    if (!runs[run].samples) throw new Error(`${runs[run].name} lists no sample yet`);
    const found = (await source.ask("sample", { run, sample: place })).head;
    if (turn !== loading) return;
    sample = found;
    state = changed(state, { run, sample: place });
    fit();
    const now = app.site();
    if (before && now && (before.rows !== now.rows || before.columns !== now.columns)) {
      state = changed(state, { row: null, column: null, span: null, query: null, key: null, box: null });
    }
    if (bar) tell(new Set(Object.keys(START)));
  }

  function tell(names) {
    if (["run", "sample", "site", "head"].some((name) => names.has(name))) look();
    if (["scale", "map", "low", "high", "skip"].some((name) => names.has(name))) repaint(names);
    if (names.has("view")) showView();
    if (settings.link) writeLink();
    settings.onState?.(state);
    bar.update(names);
    for (const view of views.values()) if (!view.element.hidden) view.update(names);
  }

  /** Learn the limits of the weights of the head that is looked at. */
  function look() {
    const site = app.site();
    const place = app.place();
    if (!site?.weights.includes(place.head)) return;
    headInfo(place)
      .then((info) => {
        const same = JSON.stringify(app.place()) === JSON.stringify(place);
        if (!same || JSON.stringify(info.limits) === JSON.stringify(limits)) return;
        limits = info.limits;
        const names = new Set();
        repaint(names);
        for (const view of views.values()) if (!view.element.hidden) view.update(names);
        bar?.update(names);
      })
      .catch(onError);
  }

  function makeColours() {
    const dark = isDark();
    const { map, scale } = state;
    const [from, to] = scale === "row" ? [limits.low / limits.high, 1] : [limits.low, limits.high]; // of a row: shares of its largest
    const low = state.low ?? from;
    const high = Math.max(state.high ?? to, low * 1.0001);
    const style = getComputedStyle(root);
    return {
      table: makeLut({ map, scale, low, high, dark }),
      ramp: rampOf(map, dark),
      background: style.getPropertyValue("--ap-background").trim(),
      ink: style.getPropertyValue("--ap-ink").trim(),
      faint: style.getPropertyValue("--ap-faint").trim(),
      accent: style.getPropertyValue("--ap-accent").trim(),
      low,
      high,
      dark,
    };
  }

  function repaint(names) {
    colours = null;
    names.add("colours");
  }

  function headInfo(place) {
    const key = JSON.stringify([place.run, place.sample, place.site, place.head]);
    if (!infos.has(key)) {
      const { run, sample: at, site, head } = place;
      const asked = source.ask("head", { run, sample: at, site, head }).then((answer) => answer.head);
      asked.catch(() => infos.delete(key));
      infos.set(key, asked);
      if (infos.size > KEPT) infos.delete(infos.keys().next().value);
    }
    return infos.get(key);
  }

  /** The tokens of a sequence of a sample; without `length`, it is one of the current sample. */
  function tokens(run, at, sequence, length = sample.sequences[sequence]) {
    const key = JSON.stringify([run, at, sequence]);
    if (!sequences.has(key)) {
      const arrived = () => {
        for (const view of views.values()) if (!view.element.hidden) view.update(new Set(["tokens"]));
      };
      sequences.set(key, tokensOf(source, run, at, sequence, length, { arrived, failed: onError }));
    }
    return sequences.get(key);
  }

  function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("ap-wrong", wrong);
  }

  function onError(error) {
    if (error?.name !== "AbortError") say(error?.message ?? String(error), true);
  }

  function showView() {
    const { name, make } = VIEW_LIST.find((one) => one.name === state.view);
    for (const [other, view] of views) {
      if (other !== name && !view.element.hidden) {
        view.element.hidden = true;
        view.hide?.();
      }
    }
    let view = views.get(name);
    if (!view) {
      view = make(app);
      views.set(name, view);
      main.append(view.element);
    }
    view.element.hidden = false;
    view.show?.();
    view.update(new Set([...Object.keys(START), "colours", "shown"]));
  }

  async function watch() {
    const { head } = await source.ask("live", { run: state.run });
    const run = runs[state.run];
    if (head.stamp !== run.stamp && run.stamp !== undefined) {
      runs = (await source.ask("runs")).head.runs;
      infos.clear();
      bar?.update(new Set(["data"]));
      for (const view of views.values()) if (!view.element.hidden) view.update(new Set(["data"]));
    }
    runs[state.run].stamp = head.stamp;
    runs[state.run].writing = head.writing;
    if (head.writing && root.isConnected) setTimeout(() => watch().catch(onError), POLL);
  }

  async function open() {
    while (!runs[Math.min(state.run, runs.length - 1)].samples) {
      // of a run that is being written, the first sample is waited for
      replace(root, h("p", { class: "ap-note", text: "no sample is listed yet; waiting for the first ..." }));
      await new Promise((resolve) => setTimeout(resolve, POLL));
      await source.ask("live", { run: Math.min(state.run, runs.length - 1) });
      runs = (await source.ask("runs")).head.runs;
    }
    await load();
  }

  const stopTheme = watchTheme(() => {
    root.dataset.theme = isDark() ? "dark" : "light";
    const names = new Set();
    repaint(names);
    for (const view of views.values()) if (!view.element.hidden) view.update(names);
  });
  root.dataset.theme = isDark() ? "dark" : "light";
  const follow = () => set({ ...START, ...fromHash(location.hash) });
  if (settings.link) addEventListener("hashchange", follow);
  app.close = () => {
    stopTheme();
    removeEventListener("hashchange", follow);
  };

  runs = (await source.ask("runs")).head.runs;
  await open();
  const opened = [state.run, state.sample];
  bar = toolbar(app, VIEW_LIST);
  replace(root, bar.element, main, status);
  root.addEventListener("keydown", (event) => bar.key(event));
  if (state.run !== opened[0] || state.sample !== opened[1]) await load(); // a link that was opened meanwhile
  fit();
  tell(new Set(Object.keys(START)));
  root.app = app; // for tests and for the curious
  watch().catch(onError);
  return app;
}

/** A source that tells how many questions are not answered yet. */
function counting(source) {
  const counted = { ...source, waiting: 0 };
  counted.ask = (name, params, options) => {
    counted.waiting++;
    return source.ask(name, params, options).finally(() => counted.waiting--);
  };
  return counted;
}
