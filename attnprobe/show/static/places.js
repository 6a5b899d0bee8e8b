/** Any head of any sample of any run: what there is to choose from, and the controls that choose it. */

import { h, labelled, options, select } from "./dom.js";
import { headName } from "./ranking.js";

/**
 * Answers of `sample` for other samples and runs, asked for once.
 * @param {object} app
 * @returns {{of(run: number, sample: number): Promise<object>, forget(): void}}
 */
export function samplesOf(app) {
  const known = new Map();
  return {
    of(run, sample) {
      if (run === app.state.run && sample === app.state.sample) return Promise.resolve(app.sample);
      const key = `${run}/${sample}`;
      if (!known.has(key)) {
        const asked = app.source.ask("sample", { run, sample }).then(({ head }) => head);
        asked.catch(() => known.delete(key));
        known.set(key, asked);
      }
      return known.get(key);
    },
    forget: () => known.clear(),
  };
}

/**
 * The place nearest to one that a sample has: the same site and head where they have weights. Pure.
 * @param {object} found answer of `sample`
 * @param {{run: number, sample: number, site: string, head: number}} wanted
 * @param {object} old what is known of the wanted site, where it is one of another sample or run
 * @returns {object|null} null where the sample has no weights at all
 */
export function nearest(found, wanted, old = found.sites.find(({ key }) => key === wanted.site)) {
  const sites = found.sites.filter((site) => site.weights.length > 0);
  const site = sites.find(({ key }) => key === wanted.site) ?? sites.find(({ layer, kind }) => layer === old?.layer && kind === old?.kind) ?? sites[0];
  if (site === undefined) return null;
  const head = site.weights.reduce((best, one) => (Math.abs(one - wanted.head) < Math.abs(best - wanted.head) ? one : best));
  return { ...wanted, site: site.key, head };
}

/**
 * What to compare a place with before anybody has chosen, in one run: the next head with weights, of this site or another. Pure.
 * @param {object} found answer of `sample`
 * @param {{run: number, sample: number, site: string, head: number}} place
 * @returns {object}
 */
export function neighbour(found, place) {
  const all = found.sites.flatMap((site) => site.weights.map((head) => ({ ...place, site: site.key, head })));
  const at = all.findIndex((one) => one.site === place.site && one.head === place.head);
  return all[at + 1] ?? all[at - 1] ?? place;
}

/**
 * What to compare a place with before anybody has chosen: of several runs the same site and head of the next one, since they
 * were opened together; else the next head.
 * @param {object} app
 * @param {{of(run: number, sample: number): Promise<object>}} samples of `samplesOf`
 * @returns {Promise<object>}
 */
export async function counterpart(app, samples) {
  const place = app.place();
  const [site, near] = [app.site(), neighbour(app.sample, place)];
  const run = (place.run + 1) % app.runs.length;
  const { samples: count } = app.runs[run];
  if (run === place.run || count < 1) return near;
  const wanted = { ...place, run, sample: Math.min(place.sample, count - 1) };
  return nearest(await samples.of(run, wanted.sample), wanted, site) ?? near;
}

/**
 * A name for each run that is no other's: its directory's, and what is in it where there are several. Pure.
 * @param {{name: string, title: string, path: string|null}[]} runs answer of `runs`
 * @returns {string[]}
 */
export function runNames(runs) {
  const alike = (texts, text) => texts.filter((one) => one === text).length > 1;
  const names = runs.map(({ name, title }) => (title ? `${name}: ${title}` : name));
  const longer = names.map((text, i) => (alike(names, text) && runs[i].path ? `${runs[i].path}: ${runs[i].title}` : text));
  return longer.map((text, i) => (alike(longer, text) ? `${i + 1}. ${text}` : text));
}

/** The run's name in words: with its place where another run has the same. */
function runName(runs, at) {
  const name = runs[at]?.name ?? "a run";
  return runs.filter((one) => one.name === name).length > 1 ? `${name} (run ${at + 1})` : name;
}

/**
 * A place in words, with no more than what tells it from the other one. Pure.
 * @param {{run: number, sample: number, site: string, head: number}} place
 * @param {object} found answer of `sample`
 * @param {object[]} runs answer of `runs`
 * @param {boolean} whole with run and sample
 */
export function placeInWords(place, found, runs, whole) {
  const site = found.sites.find(({ key }) => key === place.site);
  const name = site === undefined ? `${place.site} H${place.head}` : headName(site, found.sites, place.head);
  if (!whole) return name;
  return `${name}, sample ${found.id}${runs.length > 1 ? ` of ${runName(runs, place.run)}` : ""}`;
}

/**
 * Controls that choose a place.
 * @param {object} app
 * @param {(changes: object) => void} change called with what was chosen of run, sample, site, head
 * @returns {{element: HTMLElement, update(place: object, found: object): void}}
 */
export function placeControls(app, change) {
  const run = select([], 0, (value) => change({ run: Number(value), sample: 0 }), { name: "other-run" });
  const sample = h("input", { type: "number", min: 0, name: "other-sample", on: { change: () => change({ sample: Math.max(0, Math.floor(Number(sample.value)) || 0) }) } });
  const site = select([], "", (value) => change({ site: value }), { name: "other-site" });
  const head = select([], 0, (value) => change({ head: Number(value) }), { name: "other-head" });
  const runLabel = labelled("run", run);
  const sampleLabel = labelled("sample", sample);
  const element = h("div", { class: "ap-othercontrols" }, runLabel, sampleLabel, labelled("layer", site), labelled("head", head));

  function update(place, found) {
    const { runs } = app;
    runLabel.hidden = runs.length < 2;
    options(run, runNames(runs).map((name, at) => [at, name]), place.run);
    const samples = runs[place.run]?.samples ?? 0;
    sampleLabel.hidden = samples < 2;
    sample.max = samples - 1;
    sample.value = place.sample;
    const kept = found.sites.filter((one) => one.weights.length > 0);
    options(site, kept.map((one) => [one.key, layerName(one, kept)]), place.site);
    const heads = kept.find(({ key }) => key === place.site)?.weights ?? [];
    options(head, heads.map((one) => [one, one]), place.head);
  }

  return { element, update };
}

const layerName = (site, sites) => (sites.filter(({ layer }) => layer === site.layer).length === 1 ? String(site.layer) : site.label.replace(/^layer /u, ""));
