/** The numbers of a measure of many heads: which are asked for, and where one head's are. */

/** The measures that are a curve: a number a query row, or a key. */
export function curveMeasures(sample) {
  return sample.measures.filter(({ axes }) => axes.length === 1 && (axes[0] === "query" || axes[0] === "key"));
}

/** The chosen name if it is there, else the first of some that is, else the n-th there is; "" of none. */
export function pick(names, chosen, wanted, place) {
  if (names.includes(chosen)) return chosen;
  return wanted.find((name) => names.includes(name)) ?? names[Math.min(place, names.length - 1)] ?? "";
}

/** The curve that is shown where a name was chosen, or none (""). */
export function shownCurve(sample, chosen) {
  return pick(curveMeasures(sample).map(({ name }) => name), chosen, ["entropy", "max"], 0);
}

/**
 * A measure of all heads, and exactly of the one at `place`, which is `{run, sample, site, head}`.
 *
 * Gives `{rows, own}`, each `null` where there is none: `rows` is `{of: Map from nameOf(site, head) to array, coords}` of
 * all heads, which for long samples are means of neighbours; `own` is `{values, coords}` of the head, every number.
 */
export async function rowsOf(source, place, axis, name) {
  const { run, sample, site, head } = place;
  const rows = await source.ask("stripes", { run, sample, name }).then(read(axis), () => null); // too long to be read at once
  const mine = rows?.of.get(nameOf(site, head));
  if (mine && rows.covers === 1) return { rows, own: { values: mine, coords: rows.coords } };
  if (rows && !mine) return { rows, own: null };
  try {
    const { head: told, values } = await source.ask("measure", { run, sample, site, head, name });
    return { rows, own: { values, coords: told.coords[axis] } };
  } catch (error) {
    if (!mine) throw error;
    return { rows, own: { values: mine, coords: rows.coords } }; // such as in a file, which does not hold everything
  }
}

const read = (axis) => ({ head, values }) => {
  const length = head.heads.length ? values.length / head.heads.length : 0;
  const of = new Map(head.heads.map((number, i) => [nameOf(head.sites[i], number), values.subarray(i * length, (i + 1) * length)]));
  return { of, coords: head.coords[axis], covers: head.covers ?? 1 };
};

/** One name of a site and a head. */
export function nameOf(site, head) {
  return `${head} ${site}`;
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
