/** A box on the map: its bounds, and the heads in order of the mass that they put there. Pure. */

/**
 * A box with bounds in order, whole, inside of the map and not empty, or null.
 * @param {number[]} box top, bottom, left, right
 * @param {[number, number]} shape queries, keys
 * @returns {[number, number, number, number]|null}
 */
export function tidyBox(box, shape) {
  if (!Array.isArray(box) || box.length !== 4 || !box.every(Number.isFinite)) return null;
  const [top, bottom] = tidySide(box[0], box[1], shape[0]);
  const [left, right] = tidySide(box[2], box[3], shape[1]);
  return top < bottom && left < right ? [top, bottom, left, right] : null;
}

function tidySide(one, other, length) {
  const clamp = (at) => Math.max(0, Math.min(length, at));
  return [clamp(Math.floor(Math.min(one, other))), clamp(Math.ceil(Math.max(one, other)))];
}

/**
 * Heads, the most mass first; ties by layer and head; heads without a number are left out.
 * @param {{key: string, heads: number[], mass: (number|null)[]}[]} answers one a site, in the model's order
 * @returns {{key: string, head: number, mass: number, exact: boolean}[]}
 */
export function rank(answers) {
  const rows = [];
  answers.forEach((answer, place) => {
    answer.heads.forEach((head, i) => {
      const mass = answer.mass[i];
      if (mass === null || !Number.isFinite(mass)) return;
      rows.push({ key: answer.key, head, mass, exact: answer.exact === true, place });
    });
  });
  rows.sort((a, b) => b.mass - a.mass || a.place - b.place || a.head - b.head);
  return rows.map(({ key, head, mass, exact }) => ({ key, head, mass, exact }));
}

/**
 * Bounds in words: "256 queries (20,000 to 20,255) x 512 keys (0 to 511)".
 * @param {[number, number, number, number]} box
 * @returns {string}
 */
export function boxInWords([top, bottom, left, right]) {
  return `${side(top, bottom, "query", "queries")} × ${side(left, right, "key", "keys")}`;
}

function side(start, stop, one, many) {
  const write = (number) => number.toLocaleString("en-US");
  if (stop - start === 1) return `1 ${one} (${write(start)})`;
  return `${write(stop - start)} ${many} (${write(start)} to ${write(stop - 1)})`;
}

/**
 * Whether two heads may be subtracted, in words where they may not, and what to know where they may.
 * @param {{shape: number[], id: string, tokens: string[]|null, where: string}} a
 * @param {{shape: number[], id: string, tokens: string[]|null, where: string}} b
 * @returns {{subtract: boolean, text: string}} `text` is empty where there is nothing to say
 */
export function agreement(a, b) {
  if (a.shape[0] !== b.shape[0] || a.shape[1] !== b.shape[1]) {
    const write = ([queries, keys]) => `${queries.toLocaleString("en-US")} × ${keys.toLocaleString("en-US")}`;
    const text = `The left map is ${write(a.shape)} (queries × keys), the right one ${write(b.shape)}: they are shown side by side, and cannot be subtracted.`;
    return { subtract: false, text };
  }
  const first = firstDifference(a.tokens, b.tokens);
  if (first === null) return { subtract: true, text: "" };
  const text = `The texts differ from token ${first.toLocaleString("en-US")} on: a place on both maps is the same position, not the same token.`;
  return { subtract: true, text };
}

/** The first position at which tokens differ, or null where they do not or are not known. */
function firstDifference(a, b) {
  if (a === null || b === null) return null;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) if (a[i] !== b[i]) return i;
  return a.length === b.length ? null : length;
}

/**
 * A head's short name: "L5 H1", with what else it takes where a layer has several sites.
 * @param {{key: string, layer: number, kind: string, part: string}} site
 * @param {object[]} sites all of the sample
 * @param {number} head
 * @returns {string}
 */
export function headName(site, sites, head) {
  const layer = sites.filter((one) => one.layer === site.layer);
  if (layer.length === 1) return `L${site.layer} H${head}`;
  for (const name of ["kind", "part"]) {
    if (layer.filter((one) => one[name] === site[name]).length === 1) return `L${site.layer} ${site[name]} H${head}`;
  }
  return `${site.key} H${head}`;
}
