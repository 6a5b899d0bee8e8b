/** The deep zoom: one head's map from the whole to single weights. */

import { debounce, h, replace } from "./dom.js";
import { createExact } from "./exact.js";
import { keyGestures, pointerGestures } from "./gestures.js";
import { minus } from "./differing.js";
import { mapDrawing } from "./mapdrawing.js";
import { boxOf } from "./marks.js";
import { minimapAt, minimapOf } from "./minimap.js";
import { createPicture } from "./picture.js";
import { crossText, pictureText } from "./readout.js";
import { sharedView } from "./sharedview.js";
import { mapSubject } from "./mapsubject.js";
import { clamp, fit, fromState, pan, pick, pointOf, reveal, toState, zoomAt } from "./js";

const HELP =
  "Arrows move the map, plus and minus zoom, 0 shows all of it. Shift with arrows moves the crosshair by one weight, Enter chooses its " +
  "row and column, m goes to the largest weight near it, b starts and ends a box, Escape leaves.";

/** The view of the head that is looked at. */
export function mapView(app) {
  return createMap(app, { places: () => [app.place()] });
}

/**
 * A map of one place, or of one minus another; all maps of an app show the same part.
 * @param {object} app
 * @param {object} options
 * @param {function(): object[]} options.places one place, or two: the first minus the second
 * @param {function(): string} options.title what it is a map of, for screen readers
 */
export function createMap(app, { places, title = () => "" }) {
  const picture = h("canvas", { class: "ap-map-canvas" });
  const ink = h("canvas", { class: "ap-map-canvas" });
  const note = h("p", { class: "ap-map-note ap-note", hidden: true });
  const help = h("span", { class: "ap-hidden", id: `ap-help-${Math.random().toString(36).slice(2)}`, text: HELP });
  const stage = h(
    "div",
    { class: "ap-map-stage", tabIndex: 0, role: "application", "aria-roledescription": "zoomable map", "aria-describedby": help.id },
    picture, ink, note,
  );
  const live = h("div", { class: "ap-hidden", "aria-live": "polite" });
  const readout = h("div", { class: "ap-map-readout" });
  const facts = h("div", { class: "ap-map-facts" });
  const element = h("div", { class: "ap-map" }, readout, stage, facts, help, live);

  const shared = sharedView(app);
  const pictures = createPicture(app, { changed: frame });
  const exact = createExact(app.source, { changed: frame });
  const subjects = mapSubject(app, { changed: subjectChanged });
  const drawing = mapDrawing(picture, ink);
  const counts = { frames: 0, missing: 1, level: null };
  let waiting = false;
  let shown = false;
  let corner = null; // of a box that is being drawn: {from, to}

  const subject = () => subjects.current;
  const area = () => drawing.area;
  const view = () => fromState(shared.part, subject().shape, area());
  const ready = () => shown && subject() && area().width > 20 && area().height > 20;

  function frame() {
    if (waiting || !shown) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function draw() {
    waiting = false;
    if (!ready()) return;
    counts.frames++;
    const { shape, tokens, infos } = subject();
    const { state } = app;
    const now = view();
    const signed = infos.length > 1;
    const cross = shared.cross && shared.cross.query < shape[0] && shared.cross.key < shape[1] ? shared.cross : null;
    const box = corner ? boxOf(corner.from, corner.to ?? cross ?? corner.from) : state.box;
    const drawn = drawing.draw(pictures, { view: now, shape, tokens, cross, box, state, signed, colours: colours() });
    Object.assign(counts, { missing: drawn.missing, level: drawn.level });
    say(facts, pictureText({ ...drawn, pixels: now.pixels, how: state.how, infos, signed, skip: state.skip }));
    readout.textContent = cross ? crossAt(cross) : "point at a weight; wheel or pinch to zoom, drag to move";
  }

  function colours() {
    const { background, ink: text, faint, accent, low, high } = app.colours();
    return { background, ink: text, faint, accent, line: faint, limits: { low, high } };
  }

  function crossAt(cross) {
    const { places: at, shape, tokens, infos } = subject();
    const values = at.map((place) => exact.at(place, cross.query, cross.key));
    if (values.includes(undefined)) exact.want(at.map((place) => [place, shape, cross.query, cross.key]));
    const known = values.every((value) => typeof value === "number");
    return crossText({
      cross,
      tokens: [tokens[0]?.at(cross.query) ?? "", tokens[1]?.at(cross.key) ?? ""],
      exact: known ? (values.length > 1 ? values[0] - values[1] : values[0]) : values.includes(null) ? null : undefined,
      cell: pictures.valueAt(cross.query, cross.key, counts.level ?? 0),
      how: app.state.how,
      signed: infos.length > 1,
    });
  }

  /** Texts that each say on hover what they mean; elements are made anew only when they changed. */
  function say(host, parts) {
    const text = parts.map(([words]) => words).join("|");
    if (host.dataset.text === text) return;
    host.dataset.text = text;
    replace(host, parts.map(([words, meaning]) => h("span", { text: words, title: meaning })));
  }

  const tell = debounce(350, () => {
    if (shared.cross && ready()) live.textContent = crossAt(shared.cross);
  });

  function look(next) {
    const { shape } = subject();
    shared.move(toState(clamp(next, shape, area()), shape, area()));
  }

  const inArea = ({ x, y }) => [x - drawing.origin.x, y - drawing.origin.y];
  const pickAt = (point) => pick(view(), ...inArea(point), area(), subject().shape);
  const within = (point) => {
    const [x, y] = inArea(point);
    return pickAt({ x: drawing.origin.x + Math.min(Math.max(x, 0), area().width), y: drawing.origin.y + Math.min(Math.max(y, 0), area().height) });
  };
  const minimap = () => minimapOf(view(), area(), subject().shape, drawing.origin);

  function zoom(factor, point) {
    if (ready()) look(zoomAt(view(), factor, ...(point ? inArea(point) : middle()), area()));
  }

  /** Where keys zoom: at the crosshair if it is seen. */
  function middle() {
    const { x, y } = shared.cross ? pointOf(view(), shared.cross.query + 0.5, shared.cross.key + 0.5, area()) : { x: -1, y: -1 };
    const inside = x >= 0 && y >= 0 && x <= area().width && y <= area().height;
    return inside ? [x, y] : [area().width / 2, area().height / 2];
  }

  function choose(at) {
    if (at) app.set({ query: at.query, key: at.key });
  }

  function jump(point) {
    const to = minimapAt(minimap(), subject().shape, point);
    if (to) look({ ...view(), ...to });
  }

  pointerGestures(stage, {
    wheel: () => ready() && (app.source.kind !== "comm" || stage.contains(document.activeElement)), // a notebook scrolls on
    zoom,
    pan: (dx, dy) => ready() && look(pan(view(), dx, dy)),
    hover: (point) => shared.point(point && ready() ? pickAt(point) : null),
    pick: (point) => ready() && (shared.point(pickAt(point)), choose(pickAt(point))),
    grab: (point, shift) => {
      stage.focus({ preventScroll: true });
      if (!ready()) return "none";
      if (minimapAt(minimap(), subject().shape, point)) return "minimap";
      return shift && pickAt(point) ? "box" : "pan";
    },
    drag: (name, from, to) => {
      if (!ready()) return;
      if (name === "minimap") jump(to);
      if (name === "box") corner = { from: corner?.from ?? pickAt(from), to: within(to) ?? corner?.to };
      frame();
    },
    drop: (name, from, to) => {
      if (!ready()) return;
      if (name === "minimap") jump(to);
      if (name === "box") endBox(within(to) ?? corner?.to);
    },
  });

  function endBox(to) {
    const from = corner?.from;
    corner = null;
    if (from && to) app.set({ box: boxOf(from, to) });
    frame();
  }

  /** The crosshair, or the weight in the middle. */
  function crossOrMiddle() {
    const { shape } = subject();
    const { row, column } = view();
    const within = (at, length) => Math.min(Math.max(Math.floor(at), 0), length - 1);
    return shared.cross ?? { query: within(row, shape[0]), key: within(column, shape[1]) };
  }

  function pointAt(cross) {
    look(reveal(view(), cross.query, cross.key, area(), subject().shape));
    shared.point(cross);
    tell();
  }

  /** To the largest weight of the cell that the crosshair is in; of single weights, of those around. */
  async function largest() {
    const at = crossOrMiddle();
    const { places: [place, other], shape } = subject();
    const side = Math.min(Math.max(2 ** (counts.level ?? 0), 16), 256);
    const [top, left] = [at.query, at.key].map((one) => Math.floor(one / side) * side);
    const part = { top, bottom: Math.min(top + side, shape[0]), left, right: Math.min(left + side, shape[1]) };
    const [first, second] = await Promise.all([place, other].filter(Boolean).map((one) => app.source.ask("weights", { ...one, ...part })));
    const values = second ? first.values.map((value, i) => Math.abs(minus(value, second.values[i]))) : first.values;
    const best = values.reduce((most, value, i) => (value > (values[most] ?? -Infinity) ? i : most), 0);
    const width = part.right - part.left;
    pointAt({ query: top + Math.floor(best / width), key: left + (best % width) });
  }

  const guarded = (act) => (...values) => ready() && act(...values);
  keyGestures(stage, {
    zoom: guarded(zoom),
    pan: guarded((dx, dy) => look(pan(view(), dx, dy))),
    whole: guarded(() => look(fit(subject().shape, area()))),
    step: guarded((down, across) => {
      const { query, key } = crossOrMiddle();
      const { shape } = subject();
      if (!shared.cross) return pointAt({ query, key });
      const within = (at, length) => Math.min(Math.max(at, 0), length - 1);
      return pointAt({ query: within(query + down, shape[0]), key: within(key + across, shape[1]) });
    }),
    pick: guarded(() => choose(crossOrMiddle())),
    leave: guarded(() => {
      corner = null;
      shared.point(null);
      app.set({ query: null, key: null, box: null });
    }),
    box: guarded(() => (corner ? endBox(crossOrMiddle()) : ((corner = { from: crossOrMiddle() }), frame()))),
    largest: guarded(() => largest().catch(app.onError)),
  });

  function subjectChanged() {
    const { error } = subjects;
    note.hidden = !error;
    note.textContent = error ?? "";
    picture.hidden = ink.hidden = Boolean(error);
    facts.hidden = readout.hidden = Boolean(error);
    if (subject()) pictures.subject = { ...subject(), how: app.state.how };
    stage.setAttribute("aria-label", [title() || subjects.title, sizeText()].filter(Boolean).join(", "));
    frame();
  }

  function sizeText() {
    return subject() ? `${subject().shape[0]} queries by ${subject().shape[1]} keys` : "";
  }

  new ResizeObserver(() => {
    drawing.resize(stage, devicePixelRatio || 1);
    frame();
  }).observe(stage);

  element.attnprobe = {
    counts,
    get view() {
      return ready() ? { ...view(), area: area(), origin: drawing.origin } : null;
    },
    cache: pictures.cache,
    /** Once all that is seen is there and drawn. */
    async settled() {
      do await new Promise((resolve) => setTimeout(resolve, 20));
      while (!ready() || waiting || counts.missing || pictures.busy || exact.busy || subjects.busy);
    },
  };

  return {
    element,
    show() {
      shown = true;
      shared.followers.add(frame);
    },
    hide() {
      shared.settle();
      shown = false;
      shared.followers.delete(frame);
    },
    update(changed) {
      if (["row", "column", "span"].some((name) => changed.has(name))) shared.adopt();
      subjects.follow(places(), changed);
      if (subject()) pictures.subject = { ...subject(), how: app.state.how };
      frame();
    },
  };
}
