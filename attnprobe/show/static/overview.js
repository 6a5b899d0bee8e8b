/** All layers and heads at a glance: a picture of each, what kind it is, sorted and marked by any measure. */

import { drawCells } from "./cells.js";
import { button, h, labelled, options, replace, select } from "./dom.js";
import { byPlace, byRank, groupsOf, headsOf, hit, moved, ranked, visible } from "./grid.js";
import { describe, kindList } from "./kindlist.js";
import { kindsOf, limitsOf, measuredKinds, scoreOf } from "./kinds.js";
import { makeLut } from "./lut.js";
import { thumbnails } from "./thumbnails.js";
import { short } from "./ticks.js";
import { tooltip } from "./tooltip.js";

const ASCENDING = "-"; // before a measure's name in the state's `sort`

export function overviewView(app) {
  const canvas = h("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "grid of heads" });
  const sizer = h("div", { class: "ap-sizer" }, canvas);
  const scroller = h("div", { class: "ap-cells" }, sizer);
  const stage = h("div", { class: "ap-stage" }, scroller);
  const live = h("div", { class: "ap-hidden", "aria-live": "polite" });
  const sort = select([], "", (value) => app.set({ sort: value }), { name: "sort" });
  const turn = button("", () => app.set({ sort: flipped(app.state.sort) }), { title: "The other way round" });
  const color = select([], "", (value) => app.set({ color: value }), { name: "color" });
  const legend = h("span", { class: "ap-scale" });
  const weights = h("span", { class: "ap-scale", title: "The weights of the pictures" });
  const marks = labelled("mark by", color, "A strip below each head");
  const push = h("span", { class: "ap-push" });
  const bar = h("div", { class: "ap-tools" }, labelled("order", sort), turn, marks, legend, push, weights);
  const kinds = kindList({
    open,
    sort: (measure) => app.set({ sort: measure }),
    point: (item) => aim(item ? numberOf(item.site, item.head) : -1, true),
  });
  const element = h("div", { class: "ap-overview" }, bar, h("div", { class: "ap-split" }, stage, kinds.element), live);
  const tip = tooltip(stage);
  const pictures = thumbnails(app.source, { arrived: paint, failed });

  let [sample, groups, heads, scores] = [null, [], [], null];
  let [layout, focused, over, asked, lut] = [null, -1, -1, false, null];

  new ResizeObserver(() => sample && arrange()).observe(scroller);
  scroller.addEventListener("scroll", () => {
    tip.hide();
    paint();
  });
  canvas.addEventListener("pointermove", (event) => aim(under(event)));
  canvas.addEventListener("pointerleave", () => aim(-1));
  canvas.addEventListener("click", (event) => {
    const cell = layout?.cells[under(event)];
    if (cell) open(cell.item);
  });
  canvas.addEventListener("focus", () => {
    if (focused < 0) focused = Math.max(0, numberOf(app.state.site, app.state.head));
    tell();
    paint();
  });
  canvas.addEventListener("blur", () => {
    focused = -1;
    aim(-1);
    paint();
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || !layout) return;
    if (event.key === "Escape") return aim(-1);
    const cell = layout.cells[focused];
    if ((event.key === "Enter" || event.key === " ") && cell) open(cell.item);
    else {
      const next = moved(layout, focused, event.key, event.ctrlKey);
      if (next < 0) return;
      focused = next;
      reveal(next);
      tell();
    }
    event.preventDefault();
    event.stopPropagation();
  });

  function open({ site, head }) {
    const drawn = app.site(site)?.weights.includes(head);
    app.set({ site, head, view: drawn ? "map" : "measures" });
  }

  function numberOf(site, head) {
    return layout ? layout.cells.findIndex(({ item }) => item.site === site && item.head === head) : -1;
  }

  /** Which cell is under the pointer. */
  function under({ offsetX, offsetY }) {
    return layout ? hit(layout, offsetX + scroller.scrollLeft, offsetY + scroller.scrollTop) : -1;
  }

  function aim(next, quiet = false) {
    if (next === over) return;
    over = next;
    canvas.style.cursor = over >= 0 ? "pointer" : "";
    if (quiet && over >= 0) reveal(over);
    paint();
    if (over < 0 || quiet) return tip.hide();
    const { item, x, y } = layout.cells[over];
    const told = describe(item, scores, groups.length > 1);
    const rows = [...told.kinds.map((kind) => [kind, ""]), ...told.rows];
    const empty = item.weights ? "" : "no weights were kept";
    const left = scroller.offsetLeft + x - scroller.scrollLeft;
    tip.show(told.title, empty ? [[empty, ""], ...rows] : rows, { left, right: left + layout.size, top: y - scroller.scrollTop });
  }

  /** Say which head has the focus, for those who hear the page. */
  function tell() {
    const cell = layout?.cells[focused];
    if (!cell) return;
    const { title, kinds: names, rows } = describe(cell.item, scores, groups.length > 1);
    const shown = rows.slice(0, 8).map(([name, value]) => `${name} ${value}`);
    live.textContent = [title, ...names, ...shown, cell.item.weights ? "Enter opens its map" : "Enter opens its measures"].join(", ");
  }

  function reveal(number) {
    const { x, y } = layout.cells[number];
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = scroller;
    const [wide, high] = [layout.size + 8, layout.size + layout.strip + layout.caption + 8];
    if (y - 28 < scrollTop) scroller.scrollTop = y - 28;
    else if (y + high > scrollTop + clientHeight) scroller.scrollTop = y + high - clientHeight;
    if (x - 48 < scrollLeft) scroller.scrollLeft = x - 48;
    else if (x + wide > scrollLeft + clientWidth) scroller.scrollLeft = x + wide - clientWidth;
    paint();
  }

  function failed(error) {
    if (app.source.kind !== "file") app.onError(error); // a file holds the pictures that it holds
  }

  /** Put the cells where they belong, for the size there is. */
  function arrange() {
    const { clientWidth: width, clientHeight: height } = scroller;
    if (!width || !height) return;
    const [measure, up] = sortOf(app.state.sort);
    const strip = marked() !== "";
    const here = layout?.cells[focused]?.item;
    layout =
      scores && Object.hasOwn(scores, measure)
        ? byRank(ranked(heads, (item) => scoreOf(scores, measure, item.site, item.head), up), width, height, strip)
        : byPlace(groups, width, height, strip);
    const near = canvas.matches(":focus") ? Math.max(0, numberOf(app.state.site, app.state.head)) : -1; // it had the focus before there was a cell
    focused = here ? numberOf(here.site, here.head) : near;
    over = -1;
    sizer.style.width = `${layout.width}px`;
    sizer.style.height = `${layout.height}px`;
    canvas.setAttribute("aria-label", `${groups.map((group) => `${group.title}: ${group.note}`).join("; ")}. Arrow keys move, Enter opens.`);
    paint();
  }

  /** The measure of the cells that have nothing but measures: what is sorted by, else a kind's, else any. */
  function filling(sorted) {
    if (!scores) return "";
    return Object.hasOwn(scores, sorted) ? sorted : (measuredKinds(scores)[0]?.measure ?? Object.keys(scores)[0] ?? "");
  }

  /**
   * Colours for the pictures of all heads: by limits of their own, since those of one head are no others'. A limit that
   * a person set holds here too; by row is not seen in a picture this small, and is drawn as log.
   */
  function tableOf() {
    const { map, scale: chosen, low: from, high: to } = app.state;
    const found = pictures.limits() ?? { low: 1e-4, high: 1, max: 1 };
    const scale = chosen === "row" ? "log" : chosen;
    const low = from ?? found.low;
    const high = Math.max(to ?? (scale === "log" ? found.max : found.high), low * 1.0001);
    const { dark } = app.colours();
    const name = [map, scale, low, high, dark].join();
    if (lut?.name !== name) {
      lut = { name, table: makeLut({ map, scale, low, high, dark }) };
      showScale(weights, scale === "log" ? short(low) : "0", short(high), "", "weights");
    }
    return lut.table;
  }

  /** A scale of colours with what stands at its ends. */
  function showScale(into, low, high, unit, what = "") {
    const { ramp } = app.colours();
    const stops = [0, 0.25, 0.5, 0.75, 1].map((t) => ramp(t)).join(", ");
    const strip = h("i", { style: { background: `linear-gradient(to right, ${stops})` } });
    replace(into, what ? h("span", { text: what }) : null, h("span", { text: low }), strip, h("span", { text: unit ? `${high} ${unit}` : high }));
  }

  /** The measure of the strips: the chosen one, if it was recorded. */
  function marked() {
    return scores && Object.hasOwn(scores, app.state.color) ? app.state.color : "";
  }

  function paint() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (layout && !element.hidden && scroller.clientWidth) paintNow();
    });
  }

  function paintNow() {
    const { clientWidth: width, clientHeight: height, scrollLeft: left, scrollTop: top } = scroller;
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) {
      [canvas.width, canvas.height] = [wide, high];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(app.element);
    const custom = (name) => style.getPropertyValue(name).trim();
    const colours = { ...app.colours(), table: tableOf(), line: custom("--ap-line"), panel: custom("--ap-panel") };
    const shown = visible(layout, left, top, left + width, top + height);
    const [measure] = sortOf(app.state.sort);
    const by = marked() || filling(measure);
    const pixels = Math.round(layout.size * ratio);
    const { run, how } = app.state;
    drawCells(context, { layout, shown, left, top, width, height }, {
      colours,
      limits: by ? limitsOf(scores, by) : [0, 1],
      valueOf: (item) => (by ? scoreOf(scores, by, item.site, item.head) : null),
      kindsOf: (item) => (scores ? kindsOf(scores, item.site, item.head) : []),
      captionOf: (item) => [item.label, short(scoreOf(scores, measure, item.site, item.head) ?? NaN)],
      current: numberOf(app.state.site, app.state.head),
      focused,
      over,
      picture(item, x, y) {
        context.setTransform(1, 0, 0, 1, 0, 0);
        const drawn = pictures.draw(context, item, Math.round(x * ratio), Math.round(y * ratio), pixels, colours.table);
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        return drawn;
      },
    });
    pictures.want({ run, sample: app.state.sample, how }, shown.map((i) => layout.cells[i]));
  }

  function controls() {
    const names = Object.keys(scores ?? {});
    const [measure, up] = sortOf(app.state.sort);
    options(sort, [["", "layers by heads"], ...names.map((name) => [name, name])], names.includes(measure) ? measure : "");
    options(color, [["", "nothing"], ...names.map((name) => [name, name])], marked());
    turn.hidden = !names.includes(measure);
    turn.textContent = up ? "smallest first" : "largest first";
    for (const one of [sort, color]) one.parentElement.hidden = !names.length;
    const by = marked();
    legend.hidden = !by;
    if (!by) return;
    const [low, high] = limitsOf(scores, by);
    const { unit } = scores[by];
    showScale(legend, short(low), short(high), unit === "mass" ? "of a row" : unit);
  }

  /** Learn the numbers of a sample; the pictures come when their cells are seen. */
  function load() {
    [sample, scores] = [app.sample, null];
    groups = groupsOf(sample.sites);
    heads = headsOf(groups);
    pictures.forget();
    kinds.draw(heads, null);
    const { run, sample: place } = app.state;
    const mine = sample;
    app.source
      .ask("scores", { run, sample: place })
      .then(({ head }) => head.scores)
      .catch((error) => {
        failed(error);
        return {};
      })
      .then((found) => {
        if (mine !== sample) return;
        scores = found;
        kinds.draw(heads, scores);
        controls();
        arrange();
      });
  }

  function update(changed) {
    if (app.sample !== sample) load();
    if (["sort", "color", "run", "sample", "colours", "shown"].some((name) => changed.has(name))) controls();
    if (["sort", "color", "run", "sample", "shown"].some((name) => changed.has(name))) arrange();
    paint();
  }

  return { element, show() {}, hide: () => tip.hide(), focus: () => canvas.focus({ preventScroll: true }), update };
}

function sortOf(sort) {
  return sort.startsWith(ASCENDING) ? [sort.slice(1), true] : [sort, false];
}

function flipped(sort) {
  return sort.startsWith(ASCENDING) ? sort.slice(1) : ASCENDING + sort;
}
