/** What one query attends to, or what attends to one key: exact weights with their positions. */

import { indexIn, inWords } from "./windows.js";

/**
 * The two sequences of a site, seen from what is chosen: `chosen` holds the token that is looked at, `others` those
 * that it attends to, or that attend to it.
 * @param {object} site of the answer of `sample`
 * @param {string} toward "keys": a query is chosen; "queries": a key is
 */
export function sides(site, toward) {
  const queries = { sequence: site.queries, length: site.rows, name: "query", centre: "row" };
  const keys = { sequence: site.keys, length: site.columns, name: "key", centre: "column" };
  return toward === "keys" ? { chosen: queries, others: keys } : { chosen: keys, others: queries };
}

/**
 * Ask for one row or one column.
 * @param {object} app
 * @param {object} place run, sample, site, head
 * @param {string} toward "keys" (a row) or "queries" (a column)
 * @param {number} chosen the query or the key
 * @returns {Promise<{weights: Float32Array, ranges: [number, number][]}>} `ranges`: positions of the weights
 */
export async function attended(app, place, toward, chosen) {
  const info = await app.headInfo(place);
  if (toward === "keys") {
    if (indexIn(info.rows, chosen) < 0) {
      throw new Error(`the row of query ${chosen} was not kept of this head; kept are rows ${inWords(info.rows)}`);
    }
    const { head, values } = await app.source.ask("row", { ...place, query: chosen });
    return { weights: values, ranges: [[head.start, head.start + values.length]] };
  }
  if (indexIn([info.columns], chosen) < 0) {
    throw new Error(`the column of key ${chosen} was not kept of this head; kept are columns ${inWords([info.columns])}`);
  }
  const { head, values } = await app.source.ask("column", { ...place, key: chosen });
  return { weights: values, ranges: head.rows };
}

/**
 * What is looked at before anything is chosen: the last token that was kept, which sees most.
 * @param {object} app
 * @param {object} place run, sample, site, head
 * @param {string} toward "keys" (a query) or "queries" (a key)
 * @returns {Promise<number>} of a head without weights, the last of the sample
 */
export async function lastKept(app, place, toward) {
  const site = app.site(place.site);
  if (!site.weights.includes(place.head)) return sides(site, toward).chosen.length - 1;
  const info = await app.headInfo(place);
  const range = toward === "keys" ? info.rows[info.rows.length - 1] : info.columns;
  return Math.max(0, (range?.[1] ?? 1) - 1);
}

const BLOCKS = 16 * 256; // tokens that are asked for at once, so that other questions get their turn
const known = { range: new WeakMap(), pieces: new WeakMap() };

/**
 * All tokens of a sequence, asked for once.
 * @param {{length: number, range(start: number, stop: number): Promise<string[]>}} tokens of `app.tokens`
 * @returns {Promise<string[]>}
 */
export function allTokens(tokens) {
  return all(tokens, "range");
}

/** The same as text: a piece of it for each token. */
export function allPieces(tokens) {
  return all(tokens, "pieces");
}

function all(tokens, way) {
  let found = known[way].get(tokens);
  if (found === undefined) {
    found = read(tokens, way);
    found.catch(() => known[way].delete(tokens));
    known[way].set(tokens, found);
  }
  return found;
}

async function read(tokens, way) {
  const parts = [];
  for (let start = 0; start < tokens.length; start += BLOCKS) {
    parts.push(await tokens[way](start, Math.min(tokens.length, start + BLOCKS)));
  }
  return parts.flat();
}
