/** The deep zoom: one head's map from the whole to single weights. */

import { isWritten } from "./celltext.js";
import { button, debounce, h, replace } from "./dom.js";
import { createExact } from "./exact.js";
import { mapDrawing } from "./mapdrawing.js";
import { mapHands } from "./maphands.js";
import { mapLegend } from "./maplegend.js";
import { mapSubject } from "./mapsubject.js";
import { createPicture } from "./picture.js";
import { crossText, pictureText } from "./readout.js";
import { sharedView } from "./sharedview.js";
import { fromState, visible } from "./viewport.js";

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
  const loading = h("div", { class: "ap-map-loading", hidden: true });
  const help = h("span", { class: "ap-hidden", id: `ap-help-${Math.random().toString(36).slice(2)}`, text: HELP });
  const stage = h(
    "div",
    { class: "ap-map-stage", tabIndex: 0, role: "application", "aria-roledescription": "zoomable map", "aria-describedby": help.id },
    picture, ink, note, loading,
  );
  const live = h("div", { class: "ap-hidden", "aria-live": "polite" });
  const readout = h("div", { class: "ap-map-readout" });
  const facts = h("div", { class: "ap-map-facts" });
  const legend = mapLegend();
  const under = h("div", { class: "ap-map-under" }, legend.element, facts);
  const boxing = button("Box", () => hands.arm(), { "aria-pressed": "false", title: "The next drag draws a box (as with Shift, or the key b), for which all heads are ranked" });
  const element = h("div", { class: "ap-map" }, h("div", { class: "ap-map-top" }, readout, boxing), stage, under, help, live);

  const shared = sharedView(app);
  const pictures = createPicture(app, { changed: frame });
  const exact = createExact(app.source, { changed: frame });
  const subjects = mapSubject(app, { changed: subjectChanged });
  const drawing = mapDrawing(picture, ink);
  const counts = { frames: 0, missing: 1, level: null };
  let waiting = false;
  let shown = false;

  const tell = debounce(350, () => {
    if (shared.cross && ready()) live.textContent = crossAt(shared.cross);
  });
  const subject = () => subjects.current;
  const area = () => drawing.area;
  const view = () => fromState(shared.part, subject().shape, area());
  const ready = () => Boolean(shown && subject() && area().width > 20 && area().height > 20);
  const armed = (on) => boxing.setAttribute("aria-pressed", String(on));
  const hands = mapHands(stage, { app, shared, subject, view, area, ready, frame, tell, armed, origin: () => drawing.origin, level: () => counts.level ?? 0 });

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
    if (drawing.ratio !== devicePixelRatio) drawing.resize(stage, devicePixelRatio); // the window is on another screen
    const now = view();
    const signed = infos.length > 1;
    const cross = shared.cross && shared.cross.query < shape[0] && shared.cross.key < shape[1] ? shared.cross : null;
    const weightAt = isWritten(now) ? (query, key) => (state.skip && key === 0 ? undefined : exactAt(query, key)) : null;
    const drawn = drawing.draw(pictures, { view: now, shape, tokens, cross, box: hands.box ?? state.box, state, signed, colours: colours(), weightAt });
    Object.assign(counts, { missing: drawn.missing, level: drawn.level });
    say(facts, pictureText({ ...drawn, pixels: now.pixels, how: state.how, infos, signed, skip: state.skip }));
    const { low, high, dark } = app.colours();
    legend.update({ ends: { low, high }, scale: state.scale, signed, map: state.map, dark });
    noted(drawn.level === null ? "this file does not hold this map; open the run itself, or export more of it" : null);
    loading.hidden = !drawn.missing;
    loading.textContent = `loading ${drawn.missing}`;
    readout.textContent = cross ? crossAt(cross) : "point at a weight; wheel or pinch zooms, a drag moves, with shift it draws a box";
    wantExact(cross, weightAt ? visible(now, area(), shape) : null);
  }

  /** The exact weight of this map, or of the difference; null if it is not to be had, undefined until it is. */
  function exactAt(query, key) {
    const values = subject().places.map((place) => exact.at(place, query, key));
    if (values.every((value) => typeof value === "number")) return values.length > 1 ? values[0] - values[1] : values[0];
    return values.includes(null) ? null : undefined;
  }

  function wantExact(cross, part) {
    const { places: at, shape } = subject();
    const wanted = part ? exact.corners(part) : [];
    if (cross) wanted.push([cross.query, cross.key]);
    exact.want(wanted.filter((one) => exactAt(...one) === undefined).flatMap((one) => at.map((place) => [place, shape, ...one])));
  }

  function colours() {
    const { background, ink: text, faint, accent, low, high } = app.colours();
    return { background, ink: text, faint, accent, line: faint, limits: { low, high } };
  }

  function crossAt(cross) {
    const { tokens, infos } = subject();
    return crossText({
      cross,
      tokens: [tokens[0]?.at(cross.query) ?? "", tokens[1]?.at(cross.key) ?? ""],
      exact: exactAt(cross.query, cross.key),
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

  function subjectChanged() {
    const { error } = subjects;
    noted(error);
    picture.hidden = ink.hidden = Boolean(error);
    under.hidden = readout.hidden = boxing.hidden = Boolean(error);
    if (subject()) pictures.subject = { ...subject(), how: app.state.how };
    stage.setAttribute("aria-label", [title() || subjects.title, sizeText()].filter(Boolean).join(", "));
    frame();
  }

  function noted(text) {
    note.hidden = text === null;
    note.textContent = text ?? "";
  }

  function sizeText() {
    return subject() ? `${subject().shape[0]} queries by ${subject().shape[1]} keys` : "";
  }

  new ResizeObserver(() => {
    drawing.resize(stage, devicePixelRatio);
    if (shown && !waiting) draw(); // at once: a canvas of another size is empty
  }).observe(stage);

  element.attnprobe = {
    counts,
    get view() {
      return ready() ? { ...view(), area: area(), origin: drawing.origin } : null;
    },
    cache: pictures.cache,
    /** Once all that is seen is there and drawn, or it is said why there is nothing to see. */
    async settled() {
      const unfinished = () => !ready() || waiting || counts.missing || pictures.busy || exact.busy || shared.busy;
      do await new Promise((resolve) => setTimeout(resolve, 20));
      while (subjects.busy || (subjects.error === null && unfinished()));
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
    focus: () => stage.focus({ preventScroll: true }),
    levels: () => [counts.level],
    update(changed) {
      if (["row", "column", "span"].some((name) => changed.has(name))) shared.adopt();
      subjects.follow(places(), changed);
      if (subject()) pictures.subject = { ...subject(), how: app.state.how };
      frame();
    },
  };
}
