/** What hands do on a map: wheel, drag, pinch, tap, and keys; told as what is meant. */

const TAP = 5; // pixels that a tap may move
const DOUBLE = 350; // milliseconds between two taps that are one
const STEP = 60; // pixels that an arrow key moves
const LINE = 20; // pixels of a line that a wheel tells

/**
 * Listen on an element. `on` has: zoom(factor, point), pan(dx, dy), hover(point or null), pick(point), grab(point, shift)
 * giving "pan" or the name of another drag, drag(name, from, to), drop(name, from, to), cancel() of a drag, wheel(event) saying whether it is
 * for the map. Points are {x, y} in pixels of the element.
 */
export function pointerGestures(element, on) {
  const fingers = new Map();
  let drag = null; // {name, from, at, moved}
  let lastTap = null;
  let lastHover = null;

  const pointOf = (event) => {
    const { left, top } = element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };

  const listen = (name, listener, options) => element.addEventListener(name, listener, options);

  listen("pointerdown", (event) => {
    if (event.button !== 0) return;
    const point = pointOf(event);
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, point);
    if (fingers.size === 1) drag = { name: on.grab(point, event.shiftKey), from: point, at: point, moved: false };
    else if (drag) {
      drag = { ...drag, name: "pinch", moved: true };
      on.cancel();
    }
  });

  listen("pointermove", (event) => {
    const point = pointOf(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      lastHover = point;
      if (event.pointerType !== "touch") on.hover(point);
      return;
    }
    if (fingers.size > 1) pinch(event.pointerId, point);
    fingers.set(event.pointerId, point);
    if (fingers.size > 1 || !drag) return;
    drag.moved ||= Math.hypot(point.x - drag.from.x, point.y - drag.from.y) > TAP;
    if (!drag.moved) return;
    if (drag.name === "pan") on.pan(point.x - drag.at.x, point.y - drag.at.y);
    else if (drag.name !== "pinch") on.drag(drag.name, drag.from, point);
    drag.at = point;
    on.hover(point);
  });

  /** Two fingers: the point between them stays under them, and their distance is the size. */
  function pinch(moving, to) {
    const from = fingers.get(moving);
    const [other] = [...fingers].filter(([id]) => id !== moving).map(([, point]) => point);
    const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    const distance = (a, b) => Math.max(Math.hypot(a.x - b.x, a.y - b.y), 1);
    const [before, after] = [middle(from, other), middle(to, other)];
    on.pan(after.x - before.x, after.y - before.y);
    on.zoom(distance(to, other) / distance(from, other), after);
  }

  listen("pointerup", (event) => {
    const ended = drag;
    lift(event);
    if (!ended || fingers.size) return;
    const point = pointOf(event);
    if (ended.moved) {
      if (ended.name !== "pan" && ended.name !== "pinch") on.drop(ended.name, ended.from, point);
      return;
    }
    const double = lastTap && event.timeStamp - lastTap.time < DOUBLE && Math.hypot(point.x - lastTap.x, point.y - lastTap.y) < 4 * TAP;
    if (double) on.zoom(2, point);
    else if (ended.name === "pan") on.pick(point);
    else on.drop(ended.name, ended.from, point);
    lastTap = double ? null : { ...point, time: event.timeStamp };
  });

  function lift(event) {
    fingers.delete(event.pointerId);
    if (!fingers.size) drag = null;
    else drag = { name: "pinch", moved: true };
  }

  listen("pointercancel", (event) => {
    lift(event);
    on.cancel();
  });
  listen("pointerleave", (event) => {
    if (event.pointerType === "mouse" && !fingers.size) on.hover(null);
  });
  listen(
    "wheel",
    (event) => {
      if (!on.wheel(event)) return;
      event.preventDefault();
      const unit = event.deltaMode === 1 ? LINE : event.deltaMode === 2 ? 400 : 1;
      const size = event.ctrlKey ? 60 : 240; // a pinch on a touchpad tells of itself as a wheel with this key, in small steps
      const point = pointOf(event); // in whole pixels, of which one may be many weights
      const same = lastHover && Math.hypot(point.x - lastHover.x, point.y - lastHover.y) < 1.5;
      on.zoom(2 ** (-(event.deltaY * unit) / size), same ? lastHover : point);
    },
    { passive: false },
  );
}

/**
 * Keys. `on` has: zoom(factor), pan(dx, dy), step(down, across), whole(), pick(), leave(), box(), largest(). Keys that
 * mean something here go no further.
 */
export function keyGestures(element, on) {
  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const others = { "+": () => on.zoom(1.5), "=": () => on.zoom(1.5), "-": () => on.zoom(1 / 1.5), "0": on.whole, Enter: on.pick, Escape: on.leave, b: on.box, m: on.largest };
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [down, across] = arrows[event.key] ?? [];
    if (down !== undefined && event.shiftKey) on.step(down, across);
    else if (down !== undefined) on.pan(-across * STEP, -down * STEP);
    else if (others[event.key]) others[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
