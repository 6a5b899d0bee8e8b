/** The numbers of a measure of many heads: which are asked for, and where one head's are. */

const MOST = 8_000_000; // numbers that are asked for at once

/** The measures that are a curve: a number a query row, or a key. */
export function curveMeasures(sample) {
  return sample.measures.filter(({ axes }) => axes.length === 1 && (axes[0] === "query" || axes[0] === "key"));
}

/** The chosen name if it is there, else the first of some that is, else the n-th there is; "" of none. */
export function pick(names, chosen, wanted, place) {
  if (names.includes(chosen)) return chosen;
  return wanted.find((name) => names.includes(name)) ?? names[Math.min(place, names.length - 1)] ?? "";
}

/** How many numbers all heads of a measure are, at most. */
export function countOf(sample, name) {
  const axis = sample.measures.find((one) => one.name === name).axes[0];
  const length = (site) => (axis === "query" ? site.rows : axis === "key" ? site.columns : 64);
  return sample.sites.reduce((sum, site) => sum + site.heads.length * length(site), 0);
}

/**
 * All heads of a measure, or one where they would be too many. `place` is `{run, sample, site, head}`.
 *
 * Gives `{rows, rowOf(item), coords, whole}`: arrays of those heads whose rows are as long as the chosen head's, that of
 * `{site, head}` or null, the axis (`coordinates` reads it), and whether all heads are there.
 */
export async function rowsOf(source, place, sample, name) {
  const { run, sample: at, site, head } = place;
  const { axes } = sample.measures.find((one) => one.name === name);
  if (countOf(sample, name) > MOST) {
    const { head: told, values } = await source.ask("measure", { run, sample: at, site, head, name });
    return { rows: [values], rowOf: (item) => (item.site === site && item.head === head ? values : null), coords: told.coords[axes[0]], whole: false };
  }
  const { head: told, values } = await source.ask("stripes", { run, sample: at, name });
  const places = placesOf(told);
  const length = places.length ? values.length / places.length : 0;
  const found = new Map(places.map((one, i) => [key(one.site, one.head), values.subarray(i * length, (i + 1) * length)]));
  return { rows: [...found.values()], rowOf: (item) => found.get(key(item.site, item.head)) ?? null, coords: told.coords[axes[0]], whole: true };
}

/** A source that remembers its last few answers; what failed is asked again. */
export function remembering(source, most = 6) {
  const kept = new Map();
  return {
    ask(name, params) {
      const question = JSON.stringify([name, params]);
      const answer = kept.get(question) ?? source.ask(name, params);
      kept.delete(question);
      kept.set(question, answer);
      answer.catch(() => kept.delete(question));
      if (kept.size > most) kept.delete(kept.keys().next().value);
      return answer;
    },
    forget: () => kept.clear(),
  };
}

function placesOf({ sites, heads }) {
  return sites.map((site, i) => ({ site, head: heads[i] }));
}

function key(site, head) {
  return `${head} ${site}`;
}
