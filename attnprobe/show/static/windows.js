/** The stretch of text that is shown, and what lies outside of it. Pure: no page, no source. */

/** Fewest and most tokens that a stretch of text has. */
export const SHORTEST = 128;
export const LONGEST = 2048;

/**
 * The stretch of `size` tokens around one, moved into the text; the whole text where it is shorter.
 * @param {number} centre a position
 * @param {number} size tokens
 * @param {number} length tokens of the text
 * @returns {[number, number]} first token, and the one behind the last
 */
export function windowAround(centre, size, length) {
  const wide = Math.max(0, Math.min(Math.floor(size), length));
  const start = Math.max(0, Math.min(Math.round(centre) - (wide >> 1), length - wide));
  return [start, start + wide];
}

/**
 * How many tokens to show for a viewport of `span` weights.
 * @param {number|null} span null: nobody has chosen yet
 * @returns {number}
 */
export function windowSize(span) {
  if (span === null || !(span > 0)) return 512;
  return Math.max(SHORTEST, Math.min(LONGEST, Math.round(span)));
}

/**
 * What a row (or column) puts before, inside and after a stretch, and where the largest weight of each is.
 * @param {ArrayLike<number>} weights one a position; NaN is nothing
 * @param {(index: number) => number} position of each weight in the text, ascending
 * @param {number} start first token of the stretch
 * @param {number} stop the one behind its last
 * @returns {{before: Part, inside: Part, after: Part}}
 * @typedef {{mass: number, at: number|null, weight: number, count: number}} Part
 */
export function parts(weights, position, start, stop) {
  const found = { before: nothing(), inside: nothing(), after: nothing() };
  for (let i = 0; i < weights.length; i += 1) {
    const at = position(i);
    const part = at < start ? found.before : at < stop ? found.inside : found.after;
    const weight = weights[i];
    part.count += 1;
    if (!(weight > 0)) continue;
    part.mass += weight;
    if (weight > part.weight) {
      part.weight = weight;
      part.at = at;
    }
  }
  return found;
}

function nothing() {
  return { mass: 0, at: null, weight: 0, count: 0 };
}

/**
 * The places of the largest positive weights, largest first, ties in order of position.
 * @param {ArrayLike<number>} weights
 * @param {number} count how many
 * @param {number} from first index that may be among them
 * @param {number} to the one behind the last
 * @param {number} skip an index that may not be, or -1
 * @returns {number[]} indices into `weights`
 */
export function largest(weights, count, from = 0, to = weights.length, skip = -1) {
  const best = [];
  for (let i = from; i < to; i += 1) {
    const weight = weights[i];
    if (!(weight > 0) || i === skip) continue;
    if (best.length === count && !(weight > weights[best[count - 1]])) continue;
    let place = best.length;
    while (place > 0 && weights[best[place - 1]] < weight) place -= 1;
    best.splice(place, 0, i);
    if (best.length > count) best.pop();
  }
  return best;
}

/**
 * The index of a position among ascending kept ranges: of `rows` as `head` answers, or -1.
 * @param {[number, number][]} ranges
 * @param {number} position
 * @returns {number}
 */
export function indexIn(ranges, position) {
  let before = 0;
  for (const [start, stop] of ranges) {
    if (position < start) return -1;
    if (position < stop) return before + position - start;
    before += stop - start;
  }
  return -1;
}

/**
 * The position of an index among ascending kept ranges; the other way round of `indexIn`.
 * @param {[number, number][]} ranges
 * @returns {(index: number) => number}
 */
export function positionIn(ranges) {
  const starts = [];
  let before = 0;
  for (const [start, stop] of ranges) {
    starts.push([before, start]);
    before += stop - start;
  }
  let last = 0;
  return (index) => {
    if (last >= starts.length || index < starts[last][0]) last = 0;
    while (last + 1 < starts.length && index >= starts[last + 1][0]) last += 1;
    return starts.length ? starts[last][1] + index - starts[last][0] : -1;
  };
}

/**
 * How many positions of ascending kept ranges lie before one.
 * @param {[number, number][]} ranges
 * @param {number} position
 * @returns {number}
 */
export function countBefore(ranges, position) {
  return ranges.reduce((before, [start, stop]) => before + Math.max(0, Math.min(stop, position) - start), 0);
}

/**
 * Ranges as a person reads them: "0 to 15, 64 and 100 to 120"; at most five are named.
 * @param {[number, number][]} ranges
 * @returns {string}
 */
export function inWords(ranges) {
  const names = ranges.slice(0, 5).map(([start, stop]) => (stop - start === 1 ? `${start}` : `${start} to ${stop - 1}`));
  if (ranges.length > 5) return `${names.join(", ")} and ${ranges.length - 5} more ranges`;
  if (names.length < 2) return names[0] ?? "none";
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
