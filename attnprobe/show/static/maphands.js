/** What pointers and keys do to a map: move it, move the crosshair, choose, draw a box. */

import { keyGestures, pointerGestures } from "./gestures.js";
import { boxOf } from "./marks.js";
import { minimapAt, minimapOf } from "./minimap.js";
import { clamp, fit, pan, pick, pointOf, reveal, toState, zoomAt } from "./viewport.js";

const AROUND = [16, 256]; // weights on a side, at least and at most, of which `m` finds the largest

/**
 * Listen on a map's element.
 * @param {HTMLElement} stage
 * @param {object} map `app`, `shared`, and functions: `subject`, `view`, `area`, `origin`, `level`, `ready` (whether there is a
 *   map), `frame` (draw soon), `tell` (say where the crosshair is), `armed` (told whether the next drag draws a box)
 * @returns {{box: ?number[], arm(): void}} the box that is being drawn; the next drag draws one, or no longer
 */
export function mapHands(stage, map) {
  const { app, shared, subject, view, area, origin, ready } = map;
  let corner = null; // of a box: {from, to}
  let armed = false; // the next drag draws a box, without a key: fingers have none

  const shape = () => subject().shape;
  const bounded = (at, length) => Math.min(Math.max(at, 0), length - 1);
  const inArea = ({ x, y }) => [x - origin().x, y - origin().y];
  const at = (point) => pick(view(), ...inArea(point), area(), shape());
  const minimap = () => minimapOf(view(), area(), shape(), origin());

  function look(next) {
    shared.move(toState(clamp(next, shape(), area()), shape(), area()));
  }

  function zoom(factor, point) {
    look(zoomAt(view(), factor, ...(point ? inArea(point) : middle()), area()));
  }

  /** Where keys zoom: at the crosshair if it is seen. */
  function middle() {
    const { width, height } = area();
    if (!shared.cross) return [width / 2, height / 2];
    const { x, y } = pointOf(view(), shared.cross.query + 0.5, shared.cross.key + 0.5, area());
    return x >= 0 && y >= 0 && x <= width && y <= height ? [x, y] : [width / 2, height / 2];
  }

  /** The weight at a point, or the nearest in sight. */
  function nearest(point) {
    const [x, y] = inArea(point);
    const { row, column, pixels } = view();
    const [down, across] = [y - area().height / 2, x - area().width / 2].map((length) => length / pixels);
    return { query: bounded(Math.floor(row + down), shape()[0]), key: bounded(Math.floor(column + across), shape()[1]) };
  }

  /** The crosshair, or the weight in the middle. */
  function here() {
    const { row, column } = view();
    const cross = shared.cross ?? { query: Math.floor(row), key: Math.floor(column) };
    return { query: bounded(cross.query, shape()[0]), key: bounded(cross.key, shape()[1]) };
  }

  function pointTo(cross) {
    look(reveal(view(), cross.query, cross.key, area(), shape()));
    shared.point(cross);
    map.tell();
  }

  function choose(weight) {
    if (weight) app.set({ query: weight.query, key: weight.key });
  }

  function jump(point) {
    const to = minimapAt(minimap(), shape(), point);
    if (to) look({ ...view(), ...to });
  }

  function arm(on) {
    if (armed === on) return;
    armed = on;
    map.armed(on);
  }

  function endBox(to) {
    const { from } = corner;
    corner = null;
    arm(false);
    app.set({ box: boxOf(from, to) });
    map.frame();
  }

  /** To the largest weight of the cell that the crosshair is in; of a small cell, of those around too. */
  async function largest() {
    const from = here();
    const { places } = subject();
    const side = Math.min(Math.max(2 ** map.level(), AROUND[0]), AROUND[1]);
    const [top, left] = [from.query, from.key].map((one) => Math.floor(one / side) * side);
    const part = { top, bottom: Math.min(top + side, shape()[0]), left, right: Math.min(left + side, shape()[1]) };
    const [first, second] = await Promise.all(places.map((place) => app.source.ask("weights", { ...place, ...part })));
    const values = second ? first.values.map((value, i) => Math.abs(value - second.values[i])) : first.values;
    const best = values.reduce((most, value, i) => (value > (most < 0 ? -Infinity : values[most]) ? i : most), -1);
    const width = part.right - part.left;
    if (best >= 0) pointTo({ query: top + Math.floor(best / width), key: left + (best % width) });
  }

  /** Does nothing while there is no map. */
  const guarded =
    (act) =>
    (...values) =>
      ready() ? act(...values) : undefined;

  pointerGestures(stage, {
    // A notebook's page scrolls on until the map was clicked.
    wheel: () => ready() && (app.source.kind !== "comm" || stage.contains(document.activeElement)),
    zoom: guarded(zoom),
    pan: guarded((dx, dy) => look(pan(view(), dx, dy))),
    hover: guarded((point) => shared.point(point && at(point))),
    pick: guarded((point) => {
      shared.point(at(point));
      choose(at(point));
    }),
    grab(point, shift) {
      stage.focus({ preventScroll: true });
      if (!ready()) return "none";
      if (minimapAt(minimap(), shape(), point)) return "minimap";
      if (!(shift || armed) || !at(point)) return "pan";
      corner = { from: at(point), to: at(point) };
      return "box";
    },
    drag: guarded((name, from, to) => {
      if (name === "minimap") jump(to);
      if (name === "box" && corner) corner.to = nearest(to);
      map.frame();
    }),
    drop: guarded((name, from, to) => {
      if (name === "minimap") jump(to);
      if (name === "box" && corner) endBox(nearest(to));
    }),
    cancel() {
      corner = null;
    },
  });

  keyGestures(stage, {
    zoom: guarded(zoom),
    pan: guarded((dx, dy) => look(pan(view(), dx, dy))),
    whole: guarded(() => look(fit(shape(), area()))),
    step: guarded((down, across) => {
      const { query, key } = here();
      if (!shared.cross) return pointTo({ query, key });
      return pointTo({ query: bounded(query + down, shape()[0]), key: bounded(key + across, shape()[1]) });
    }),
    pick: guarded(() => choose(here())),
    leave: guarded(() => {
      corner = null;
      arm(false);
      shared.point(null);
      app.set({ query: null, key: null, box: null });
      map.frame();
    }),
    box: guarded(() => {
      if (corner) return endBox(here());
      corner = { from: here(), to: null };
      return map.frame();
    }),
    largest: guarded(() => largest().catch(app.onError)),
  });

  return {
    arm: () => arm(!armed),
    get box() {
      return corner && boxOf(corner.from, corner.to ?? here());
    },
  };
}
