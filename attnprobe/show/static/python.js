/** What is looked at, as lines of Python that give the same numbers. */

import { quoted, slice } from "./quoting.js";
import { shownCurve } from "./series.js";

const PIXELS = 1024; // cells across which a map is read where no level was drawn; more of them are pooled

/**
 * The lines, for the clipboard.
 * @param {object} app
 * @returns {Promise<string>}
 */
export async function python(app) {
  const { state } = app;
  const place = app.place();
  const sides = [await known(app, place)];
  if (state.view === "compare" && state.other !== null) sides.push(await known(app, state.other));
  const levels = app.levels?.() ?? [];
  return lines(state, sides.map((side, i) => ({ ...side, level: levels[i] ?? levels[0] ?? null })));
}

/** What the lines need to know of a place. */
async function known(app, place) {
  const { run, sample, site, head } = place;
  const current = run === app.state.run && sample === app.state.sample;
  const of = current ? app.sample : (await app.source.ask("sample", { run, sample })).head;
  const one = of.sites.find(({ key }) => key === site) ?? null;
  const weights = one !== null && one.weights.includes(head);
  const { path = null, name } = app.runs[run];
  const away = app.source.kind === "file"; // a file is sent to others, and knows no more than the name
  return {
    path: away ? (path ?? name) : path,
    away,
    run,
    sample,
    id: of.id,
    sites: of.sites,
    measures: of.measures,
    site: one,
    head,
    info: weights ? await app.headInfo(place) : null,
  };
}

/**
 * The same, of plain facts. Pure.
 * @param {object} state
 * @param {{path: string|null, away: boolean, run: number, sample: number, id: string, sites: object[], measures: object[],
 *   site: object|null, head: number, info: object|null, level: number|null}[]} sides
 *   the place that is looked at, and in a comparison the other one; `away`: where the run lies is not known; `level`: what
 *   was drawn of it
 * @returns {string}
 */
export function lines(state, sides) {
  const [first, second] = sides;
  const parts = ["import attnprobe as ap", "", `run = ${opened(first)}`];
  if (state.view === "heads" || state.view === "measures") return ended([...parts, ...measured(state, first)]);
  if (first.site === null) return ended([...parts, `sample = run.sample(${sampleName(first)})`]);
  parts.push(`head = ${headOf(first, "run")}`);
  if (second === undefined || second.site === null) return ended([...parts, ...read(state, first, "head")]);
  const same = second.path === first.path && second.run === first.run;
  if (!same) parts.push(`second = ${opened(second)}`);
  parts.push(`other = ${headOf(second, same ? "run" : "second")}`);
  return ended([...parts, ...compared(state, first, second)]);
}

const ended = (parts) => `${parts.join("\n")}\n`;

/** A run in memory has no path: it is the recorder's. Where one lies that a file was made of, the file does not tell. */
function opened(side) {
  if (side.path === null) return "rec.run  # it lies in memory, where it was recorded";
  return `ap.open(${quoted(side.path)})${side.away ? "  # put in the run's directory" : ""}`;
}

/** A layer's number where it names one site, else the module's name. */
export function siteName(site, sites) {
  const alike = sites.filter((one) => one.layer === site.layer && one.kind === "self");
  return site.kind === "self" && alike.length === 1 ? String(site.layer) : quoted(site.key);
}

/** A sample's id, or its place where the answer may not have told all of the id: long, or with what does not print. */
function sampleName(side) {
  return /\\|…$/u.test(side.id) ? String(side.sample) : quoted(side.id);
}

function headOf(side, run) {
  return `${run}.sample(${sampleName(side)})[${siteName(side.site, side.sites)}, ${side.head}]`;
}

function measured(state, side) {
  const parts = [`sample = run.sample(${sampleName(side)})`];
  const names = state.view === "heads" ? [state.sort, state.color] : [state.x, state.y];
  for (const name of new Set(names.filter((one) => one !== ""))) parts.push(`sample.measures[${quoted(name)}]`);
  if (side.site === null) return parts;
  const where = `${siteName(side.site, side.sites)}, ${side.head}`;
  const curve = state.view === "measures" ? shownCurve(side, state.curve) : "";
  if (curve !== "") parts.push(`head = sample[${where}]`, `head.measures[${quoted(curve)}]`);
  if (parts.length === 1) parts.push(`sample[${where}]`);
  return parts;
}

/** What one view shows of one head. */
function read(state, side, name) {
  const { info } = side;
  if (info === null) return [name];
  if (state.view === "lines" || state.view === "table") return [attends(state, info, name)];
  const box = state.view === "map" ? state.box : null;
  const parts = [`weights = ${area(box ?? visible(state, info.shape), info, name, state.how, box === null ? side.level : null)}`];
  if (box !== null) parts.push("weights.sum(axis=1).mean()  # what a query of the box puts on its keys");
  return parts;
}

function attends(state, info, name) {
  const last = (ranges) => Math.max(0, (ranges[ranges.length - 1]?.[1] ?? 1) - 1);
  if (state.toward === "queries") return `${name}.col(${state.key ?? last([info.columns])})`;
  return `${name}.row(${state.query ?? last(info.rows)})`;
}

function compared(state, first, second) {
  if (first.info === null || second.info === null) return ["head, other"];
  const box = visible(state, first.info.shape);
  const part = (bounds, side, name) => area(bounds, side.info, name, state.how, side.level);
  const alike = first.info.shape.join() === second.info.shape.join();
  const [one, two] = [part(box, first, "head"), part(alike ? box : visible(state, second.info.shape), second, "other")];
  return state.mode === "minus" && alike ? [`difference = ${one} - ${two}`] : [`left = ${one}`, `right = ${two}`];
}

/** The bounds of what a map shows: a square around its centre, or all of it. */
export function visible(state, shape) {
  const side = (centre, length) => {
    if (state.span === null) return [0, length];
    const middle = centre ?? length / 2;
    const start = Math.max(0, Math.min(Math.floor(middle - state.span / 2), length - 1));
    return [start, Math.max(start + 1, Math.min(length, Math.ceil(middle + state.span / 2)))];
  };
  return [...side(state.row, shape[0]), ...side(state.column, shape[1])];
}

/** How to read a part of a map: at the level that was drawn, else cells where there are many weights; NaN where not all was kept. */
function area([top, bottom, left, right], info, name, how, drawn) {
  const [queries, keys] = info.shape;
  const most = Math.max(bottom - top, right - left);
  const level = Math.min(info.last, drawn ?? Math.max(0, Math.ceil(Math.log2(most / PIXELS))));
  const inside = (ranges, start, stop) => ranges.some(([first, last]) => first <= start && stop <= last);
  if (level === 0 && inside(info.rows, top, bottom) && inside([info.columns], left, right)) {
    return `${name}[${slice(top, bottom, queries)}, ${slice(left, right, keys)}]`;
  }
  const size = 2 ** level;
  const cells = (start, stop) => `slice(${Math.floor(start / size)}, ${Math.ceil(stop / size)})`;
  return `${name}.levels.read(${level}, ${cells(top, bottom)}, ${cells(left, right)}, ${quoted(how)})`;
}
