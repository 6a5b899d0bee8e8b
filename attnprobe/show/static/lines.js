/** Lines from a token to the tokens that it attends to, in running text, at any length of the sample. */

import { drawLines, edgeOf, gutterOf } from "./arcs.js";
import { attended, sides } from "./attended.js";
import { button, h, replace } from "./dom.js";
import { latest } from "./latest.js";
import { chips, legend } from "./outside.js";
import { picker } from "./picker.js";
import { called, inkOn, inQuotes, levelOf, shadeOf } from "./shown.js";
import { textBlock } from "./textblock.js";
import { LONGEST, SHORTEST, countBefore, indexIn, largest, parts, positionIn, windowAround, windowSize } from "./windows.js";

const LINES = 24; // the largest weights in sight that get one
const FAINT = 0.08; // the level below which a token has no colour, and lines are seen behind it
const PAUSE = 35; // milliseconds that a pointer rests before its token is asked for

/**
 * The view.
 * @param {object} app
 */
export function linesView(app) {
  const choice = picker(app, (_, position) => choose(position), () => update(new Set(["query"])));
  const where = h("span", { class: "ap-faint" });
  const move = (by) => button(by < 0 ? "‹ earlier" : "later ›", () => turnPage(by), { title: by < 0 ? "Page Up" : "Page Down" });
  const resize = (by, text, title) => button(text, () => app.set({ span: windowSize(app.state.span) * by }), { title });
  const [earlier, later] = [move(-1), move(1)];
  const [less, more] = [resize(0.5, "−", "Less text"), resize(2, "+", "More text")];
  const notes = h("div", { class: "ap-shares" });
  const note = h("p", { class: "ap-note", role: "status" });
  const blocks = { query: block("queries"), key: block("keys") };
  const scroller = h("div", { class: "ap-lines-scroll" }, blocks.query.element, blocks.key.element);
  const canvas = h("canvas", { class: "ap-lines-canvas", "aria-hidden": "true" });
  const frame = h("div", { class: "ap-lines-frame" }, scroller, canvas, note);
  const scale = legend();
  const bar = h("div", { class: "ap-viewbar" }, choice.element, h("span", { class: "ap-push" }), where, earlier, later, less, more);
  const element = h("div", { class: "ap-lines" }, bar, notes, frame, scale.element);
  const questions = latest(PAUSE, refused);
  let hovered = null; // a position under the pointer, of the chosen side
  let answer = null; // {weights, ranges, at}: what is drawn
  let pending = 0;
  let bringing = false; // the chosen token is brought into sight, again as tokens arrive, until somebody scrolls

  scroller.addEventListener("scroll", redraw, { passive: true });
  for (const name of ["wheel", "pointerdown", "keydown"]) scroller.addEventListener(name, () => (bringing = false), { passive: true });
  new ResizeObserver(redraw).observe(frame);

  const now = () => sides(app.site(), app.state.toward);
  const single = () => app.site().queries === app.site().keys;
  const active = () => (single() ? blocks.query : blocks[now().chosen.name]);
  const target = () => (single() ? blocks.query : blocks[now().others.name]);
  const tokensOf = (side) => app.tokens(app.state.run, app.state.sample, side.sequence);

  function block(label) {
    const own = label === "queries" ? "query" : "key";
    const isActive = () => single() || now().chosen.name === own;
    return textBlock(label, {
      hover(position) {
        if (position === hovered || !isActive()) return;
        hovered = position;
        mark();
        ask();
      },
      pick(position) {
        hovered = null;
        if (isActive()) app.set({ [now().chosen.name]: position });
        else app.set({ toward: own === "query" ? "keys" : "queries", [own]: position });
      },
      key: (event) => (isActive() ? steer(event) : undefined),
    });
  }

  /** A side's stretch is around where the map's viewport is, else around the token that is looked at, else at the beginning. */
  function stretch(side) {
    const centre = app.state[side.centre] ?? (side.name === now().chosen.name ? choice.at() : (app.state[side.name] ?? 0));
    return windowAround(centre, windowSize(app.state.span), side.length);
  }

  const chosenAt = () => hovered ?? choice.at();

  function steer(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { chosen } = now();
    const from = choice.at();
    const [start, stop] = stretch(chosen);
    const steps = {
      ArrowLeft: () => from - 1,
      ArrowRight: () => from + 1,
      ArrowUp: () => active().beside(from, -1) ?? from - 1,
      ArrowDown: () => active().beside(from, 1) ?? from + 1,
      Home: () => start,
      End: () => stop - 1,
    };
    if (event.key === "PageUp" || event.key === "PageDown") turnPage(event.key === "PageUp" ? -1 : 1);
    else if (steps[event.key]) choose(Math.max(0, Math.min(chosen.length - 1, steps[event.key]())));
    else return;
    event.preventDefault();
  }

  /** Choose a token, and move the stretch where it is outside. */
  function choose(position) {
    const { chosen } = now();
    const [start, stop] = stretch(chosen);
    hovered = null;
    app.set({ [chosen.name]: position, ...(position < start || position >= stop ? { [chosen.centre]: position } : {}) });
    active().reveal(position, scroller);
  }

  /** Move both stretches by most of their length. */
  function turnPage(by) {
    const { chosen, others } = now();
    const moved = (side) => {
      const [start, stop] = stretch(side);
      const to = windowAround((start + stop) / 2 + by * 0.9 * (stop - start), stop - start, side.length);
      return (to[0] + to[1]) / 2;
    };
    const span = windowSize(app.state.span);
    app.set({ span, [chosen.centre]: moved(chosen), ...(single() ? {} : { [others.centre]: moved(others) }) });
  }

  /** Show the text around a token on the other side. */
  function jump(position) {
    const side = single() ? now().chosen : now().others;
    app.set({ span: windowSize(app.state.span), [side.centre]: position });
    target().reveal(position, scroller);
    target().mark("ap-found", [position]);
  }

  function ask() {
    const place = app.place();
    const at = chosenAt();
    if (!app.site().weights.includes(place.head)) {
      questions.drop();
      refused(new Error("no weights of this head were kept, so there are no lines; choose another head, or look at its measures"));
      return;
    }
    const { toward } = app.state;
    questions.ask(
      () => attended(app, place, toward, at),
      (found) => {
        answer = { ...found, at, toward };
        note.textContent = "";
        paint();
      },
    );
  }

  function refused(error) {
    answer = null;
    note.textContent = error.message;
    paint();
  }

  function showText() {
    const { chosen, others } = now();
    const sized = (name, side, hidden) => {
      blocks[name].element.hidden = hidden;
      if (!hidden) blocks[name].show(...stretch(side), tokensOf(side));
    };
    const named = { [chosen.name]: chosen, [others.name]: others };
    sized("query", single() ? chosen : named.query, false);
    sized("key", named.key, single());
    scroller.classList.toggle("ap-two", !single());
    for (const one of Object.values(blocks)) one.element.classList.toggle("ap-active", one === active());
    const [start, stop] = stretch(chosen);
    const write = (number) => number.toLocaleString("en-US");
    where.textContent = `tokens ${write(start)} to ${write(stop - 1)} of ${write(chosen.length)}`;
    earlier.disabled = start === 0;
    later.disabled = stop === chosen.length;
    less.disabled = windowSize(app.state.span) <= SHORTEST;
    more.disabled = windowSize(app.state.span) >= Math.min(LONGEST, chosen.length);
  }

  /** Mark the token that is looked at; what is shown of another one is pale until the answer is here. */
  function mark() {
    const at = chosenAt();
    active().mark("ap-current", [at]);
    active().choose(app.state[now().chosen.name]);
    element.classList.toggle("ap-waiting", answer !== null && answer.at !== at);
    return at;
  }

  function paint() {
    const at = mark();
    for (const one of Object.values(blocks)) if (answer === null || one !== target()) one.paint(() => null);
    if (answer === null) {
      replace(notes);
      scale.update(0, app.colours());
      redraw();
      return;
    }
    const colours = app.colours();
    const shade = shadeOf(colours);
    const [start, stop] = stretch(single() ? now().chosen : now().others);
    const position = positionIn(answer.ranges);
    const skipped = hidden();
    const most = answer.weights[largest(answer.weights, 1, 0, answer.weights.length, skipped)[0]] ?? 0;
    target().paint((token) => {
      const level = levelOf(answer.weights[indexIn(answer.ranges, token)] ?? 0, most);
      if (level < FAINT) return null;
      const background = shade(level);
      const ink = inkOn(background);
      return { background, ink: ink === inkOn(colours.background) ? "" : ink };
    });
    const found = parts(answer.weights, position, start, stop);
    const best = largest(answer.weights, 8).map((index) => ({ at: position(index), weight: answer.weights[index] }));
    const name = (one) => inQuotes(called(tokensOf(now().others), one.at));
    replace(notes, chips({ parts: found, best, name, jump, back: () => jumpBack(at), outside: isOutside(at) }));
    scale.update(most, app.colours());
    redraw();
  }

  /** The index of the first key's weight where it is to be left out. */
  const hidden = () => (app.state.skip && answer.toward === "keys" ? indexIn(answer.ranges, 0) : -1);

  function isOutside(at) {
    const [start, stop] = stretch(now().chosen);
    return at < start || at >= stop;
  }

  function jumpBack(at) {
    app.set({ [now().chosen.centre]: at });
    active().reveal(at, scroller);
  }

  function redraw() {
    if (pending) return;
    pending = requestAnimationFrame(() => {
      pending = 0;
      draw();
    });
  }

  function draw() {
    const box = frame.getBoundingClientRect();
    const lines = answer === null ? [] : linesNow(box);
    drawLines(canvas, box, lines, app.colours().accent);
  }

  /** From the chosen token, or from the edge of the text that it is beyond, to the largest weights of the stretch. */
  function linesNow(box) {
    const goal = target();
    const first = countBefore(answer.ranges, goal.start);
    const past = countBefore(answer.ranges, goal.stop);
    const skipped = hidden();
    const best = largest(answer.weights, LINES, first, past, skipped);
    const position = positionIn(answer.ranges);
    const most = answer.weights[best[0]] ?? 0;
    const from = active().rectOf(answer.at) ?? edgeOf(box, answer.at < active().start);
    const between = single() ? null : gutterOf(...[blocks.query, blocks.key].map((one) => one.element.getBoundingClientRect()));
    return best
      .map((index) => ({ from, to: goal.rectOf(position(index)), share: answer.weights[index] / most, gutter: between, at: position(index) }))
      .filter(({ to, share, at }) => to !== null && share > 0.02 && !(single() && at === answer.at));
  }

  const TEXT = ["run", "sample", "site", "head", "row", "column", "span", "toward", "query", "key", "tokens", "data", "shown"];
  const WEIGHTS = ["run", "sample", "site", "head", "row", "column", "span", "query", "key", "toward", "data", "shown"];

  function update(changed) {
    const any = (names) => names.some((name) => changed.has(name));
    if (app.site() === null) {
      note.textContent = "nothing was kept of this sample";
      return;
    }
    choice.update();
    if (any(TEXT)) showText();
    if (any(["run", "sample", "site", "head", "toward"])) answer = null;
    if (any(WEIGHTS)) ask();
    if (any(TEXT) || changed.has("colours") || changed.has("skip")) paint();
    if (any(["run", "sample", "site", "shown"])) bringing = true;
    if (bringing && any(["tokens", "site", "shown"])) requestAnimationFrame(() => bringing && active().reveal(chosenAt(), scroller));
  }

  /** Coming from a map that shows more than a stretch, the chosen token is in the text. */
  function show() {
    if (app.site() === null) return;
    const { chosen } = now();
    const { span, [chosen.name]: at } = app.state;
    if (at !== null && isOutside(at) && (span === null || span > LONGEST)) app.set({ [chosen.centre]: at });
  }

  function hide() {
    questions.drop();
    hovered = null;
  }

  return { element, show, hide, focus: () => active().element.focus({ preventScroll: true }), update };
}
