/** Ties the state, the source and the views: what is looked at lives in one place, and all that shows it is told. */

import { createAddress } from "./address.js";
import { h, replace } from "./dom.js";
import { paletteOf } from "./palette.js";
import { tidyBox } from "./ranking.js";
import { START, changed, difference, fromHash } from "./state.js";
import { isDark, watchTheme } from "./theme.js";
import { toolbar } from "./toolbar.js";
import { tokensOf } from "./tokens.js";
import { VIEW_LIST } from "./views.js";
import { createWatch } from "./watching.js";

const KEPT = 200; // answers of `head` that are kept
const TEXTS = 24; // sequences whose tokens are kept
const POLL = 2000; // milliseconds between two looks at a run that has no sample yet
const MOVES = ["row", "column", "span"]; // a map that only moves leaves an error of its patches where it is
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
  const main = h("div", { class: "ap-main", role: "tabpanel" });
  replace(element, root);
  replace(root, h("p", { class: "ap-note", text: "opening the run ..." }));

  const views = new Map();
  const watch = createWatch({ ask: grown, failed: onError, alive: () => root.isConnected });
  const infos = new Map();
  const sequences = new Map();
  let state = changed(settings.link ? fromHash(location.hash) : START, settings.state ?? {});
  let runs = [];
  let sample = null;
  let limits = NO_LIMITS;
  let colours = null;
  let loading = 0;
  let pending = null; // of another run or sample, until its answer is here: `state` is what is shown
  let bar = null;

  const address = createAddress(() => state);
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
    colours: () => (colours ??= paletteOf(state, limits, isDark(), getComputedStyle(root))),
    say,
    onError,
    /** The address that opens what is shown. */
    link: () => address.link(),
    /** Keys are then the view's own. */
    focus: () => views.get(state.view)?.focus?.(),
    /** The levels of what the view's maps show, as drawn last; of a view without maps none. */
    levels: () => views.get(state.view)?.levels?.() ?? [],
    /** Whether nothing is waited for; what is shown is then all there is. */
    settled: () => bar !== null && source.waiting === 0,
  };

  function set(changes) {
    const from = pending ?? state;
    const next = changed(from, changes);
    const names = difference(from, next);
    if (!names.size) return;
    rest([...names].every((name) => MOVES.includes(name)));
    const moves = names.has("run") || names.has("sample");
    if (bar && (pending || moves)) {
      pending = next;
      if (moves) load().catch(failed);
      return;
    }
    state = next;
    if (!bar) return; // what opens shows it
    fit();
    tell(difference(from, state));
  }

  /** A site and a head that are there, where the state names others; and nothing chosen that is beyond its map. */
  function fit() {
    const site = app.site() ?? sample.sites.find((one) => one.weights.length) ?? sample.sites[0];
    if (!site) {
      state = changed(state, { box: null });
      return;
    }
    const heads = site.heads;
    const near = heads.includes(state.head) ? state.head : heads.reduce((a, b) => (Math.abs(b - state.head) < Math.abs(a - state.head) ? b : a));
    state = changed(state, {
      site: site.key,
      head: near,
      query: state.query < site.rows ? state.query : null,
      key: state.key < site.columns ? state.key : null,
      box: state.box && tidyBox(state.box, [site.rows, site.columns]),
    });
  }

  /** Learn of the sample that is to be looked at; only then the state is of it. */
  async function load() {
    const turn = ++loading;
    const before = app.sample ? app.site() : null;
    const goal = pending ?? state;
    const run = Math.min(goal.run, runs.length - 1);
    const place = Math.max(0, Math.min(goal.sample, runs[run].samples - 1));
    let found;
    try {
      if (!runs[run].samples) throw new Error(`${runs[run].name} lists no sample yet`);
      found = (await source.ask("sample", { run, sample: place })).head;
    } catch (error) {
      if (turn === loading) throw error;
    }
    if (turn !== loading) return;
    const moved = run !== state.run;
    sample = found;
    state = changed(pending ?? state, { run, sample: place });
    pending = null;
    fit();
    if (bar && moved) watch.start(run);
    const now = app.site();
    if (before && now && (before.rows !== now.rows || before.columns !== now.columns)) {
      state = changed(state, { row: null, column: null, span: null, query: null, key: null, box: null });
    }
    if (bar) tell(new Set(Object.keys(START)));
  }

  /** What was to be looked at cannot be: what is shown stays, and link and controls say so. */
  function failed(error) {
    pending = null;
    tell(new Set());
    onError(error);
  }

  function tell(names) {
    if (["run", "sample", "site", "head"].some((name) => names.has(name))) look();
    if (["scale", "map", "low", "high", "skip"].some((name) => names.has(name))) repaint(names);
    if (names.has("view")) showView();
    if (settings.link) address.remember(names);
    settings.onState?.(state);
    bar.update();
    update(names);
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
        update(names);
        bar?.update();
      })
      .catch(onError);
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
      const arrived = () => update(new Set(["tokens"]));
      sequences.set(key, tokensOf(source, run, at, sequence, length, { arrived, failed: onError }));
      if (sequences.size > TEXTS) sequences.delete(sequences.keys().next().value);
    }
    return sequences.get(key);
  }

  function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("ap-wrong", wrong);
  }

  /** With the next action, what was said of the one before is over. */
  function rest(keepsErrors = true) {
    if (!(keepsErrors && status.classList.contains("ap-wrong"))) say("");
  }

  function onError(error) {
    if (error?.name !== "AbortError") say(error?.message ?? String(error), true);
  }

  function showView() {
    const { name, title, make } = VIEW_LIST.find((one) => one.name === state.view);
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
    main.setAttribute("aria-label", title);
    view.element.hidden = false;
    view.show?.();
    view.update(new Set([...Object.keys(START), "colours", "shown"]));
  }

  /** Show what came to a run since it was last asked about; gives whether more may come. */
  async function grown(run) {
    const { stamp, writing, samples } = (await source.ask("live", { run })).head;
    const { stamp: before = stamp, samples: listed, writing: written } = runs[run];
    const more = stamp !== before || samples !== listed;
    if (more) {
      runs = (await source.ask("runs")).head.runs;
      infos.clear();
    }
    Object.assign(runs[run], { stamp, writing });
    if (more || writing !== written) bar.update();
    if (more) update(new Set(["data"]));
    return writing;
  }

  /** Tell the view that is shown. */
  function update(names) {
    for (const view of views.values()) if (!view.element.hidden) view.update(names);
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

  const themed = () => {
    const theme = isDark() ? "dark" : "light";
    if (root.dataset.theme === theme) return; // the host changed something else
    root.dataset.theme = theme;
    const names = new Set();
    repaint(names);
    update(names);
  };
  themed();
  const stopTheme = watchTheme(themed);
  const follow = () => set({ ...START, ...fromHash(location.hash) });
  if (settings.link) addEventListener("hashchange", follow);
  const keyed = settings.link ? document : root; // a page of its own hears keys wherever the focus is
  const press = (event) => bar.key(event);
  app.close = () => {
    stopTheme();
    keyed.removeEventListener("keydown", press);
    removeEventListener("hashchange", follow);
    watch.stop();
  };

  runs = (await source.ask("runs")).head.runs;
  await open();
  const opened = [state.run, state.sample];
  bar = toolbar(app, VIEW_LIST);
  replace(root, bar.element, main, status);
  keyed.addEventListener("keydown", press);
  root.addEventListener("click", (event) => status.contains(event.target) || rest(), { capture: true }); // before what the click says
  if (state.run !== opened[0] || state.sample !== opened[1]) await load(); // a link that was opened meanwhile
  fit();
  tell(new Set(Object.keys(START)));
  root.app = app; // for tests and for the curious
  watch.start(state.run);
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
