/** The classic kinds of heads, as `attnprobe stats` names them (attnprobe/kinds.py holds the same table). */

/**
 * Rare and telling ones first: in most models, most heads look at the first token. `colour` is a fill on which white
 * letters stand out, in a dark page as in a light one, and which colour-blind readers can tell from the others; `bright`
 * is its like for points and lines on a dark page.
 */
export const KINDS = [
  { name: "induction", letter: "I", measure: "induction", threshold: 0.4, colour: "#b84a00", bright: "#f0894a", meaning: "what followed the same token earlier" },
  { name: "previous-token", letter: "P", measure: "previous", threshold: 0.4, colour: "#0b66b0", bright: "#56b4e9", meaning: "the token before" },
  { name: "duplicate", letter: "D", measure: "duplicate", threshold: 0.4, colour: "#00735a", bright: "#2bc295", meaning: "the same token earlier" },
  { name: "first-token", letter: "F", measure: "first_mass(1)", threshold: 0.4, colour: "#7546b3", bright: "#b99bf0", meaning: "the first token" },
];

/** The kinds that can be told from what was measured. */
export function measuredKinds(scores) {
  return KINDS.filter((kind) => Object.hasOwn(scores, kind.measure));
}

/** A head's score, or null where it has none: `scores` is the answer to the question `scores`. */
export function scoreOf(scores, measure, site, head) {
  if (!Object.hasOwn(scores, measure)) return null;
  const { values } = scores[measure];
  const value = Object.hasOwn(values, site) ? values[site][head] : null;
  return Number.isFinite(value) ? value : null;
}

/** The kinds that a head is of, none or several, the most telling first. */
export function kindsOf(scores, site, head) {
  return KINDS.filter((kind) => scoreOf(scores, kind.measure, site, head) > kind.threshold);
}

/**
 * The heads of a kind, the most telling first; where there are none, `most` is the head that comes nearest, if any has a score.
 * @param {object} kind of KINDS
 * @param {{site: string, head: number}[]} heads
 * @param {object} scores
 */
export function ofKind(kind, heads, scores) {
  const score = (item) => scoreOf(scores, kind.measure, item.site, item.head);
  const ranked = heads.filter((item) => score(item) !== null).sort((one, other) => score(other) - score(one));
  const found = ranked.filter((item) => score(item) > kind.threshold);
  return { found, most: found.length ? null : (ranked[0] ?? null), score };
}

/** The name with its unit, for an axis or a legend; a mass is a share of a row. */
export function titleOf(measure, unit) {
  return unit ? `${measure} (${unit === "mass" ? "share of a row" : unit})` : measure;
}

/** From what to what a measure is drawn: a share from 0 to 1, else from 0 (or the smallest) to the largest. */
export function limitsOf(scores, measure) {
  let [low, high] = [0, 0];
  for (const values of Object.values(scores[measure].values)) {
    for (const value of values) {
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (scores[measure].unit === "mass") [low, high] = [Math.min(low, 0), Math.max(high, 1)];
  return high > low ? [low, high] : [low, low + 1];
}
