/** The weights of one row as a table: which rows, in which order, and what they sum up to. Pure. */

/**
 * Which weights to list, in which order. Weights that are not a number come last; ties are in order of position.
 * @param {ArrayLike<number>} weights one a key
 * @param {string} by "position", "token" or "weight"
 * @param {boolean} descending
 * @param {(index: number) => string} tokenOf text of each; only asked where it matters
 * @param {string} filter only tokens that contain it, upper and lower case alike; "" for all
 * @returns {Int32Array} indices into `weights`
 */
export function order(weights, by, descending, tokenOf, filter = "") {
  const wanted = filter.toLowerCase();
  const chosen = [];
  for (let i = 0; i < weights.length; i += 1) {
    if (wanted === "" || tokenOf(i).toLowerCase().includes(wanted)) chosen.push(i);
  }
  const indices = Int32Array.from(chosen);
  if (by === "weight") {
    const up = (a, b) => compareNumbers(weights[a], weights[b], descending) || a - b;
    indices.sort(up);
  } else if (by === "token") {
    const texts = new Map(chosen.map((i) => [i, tokenOf(i)]));
    const sign = descending ? -1 : 1;
    indices.sort((a, b) => sign * compareTexts(texts.get(a), texts.get(b)) || a - b);
  } else if (descending) {
    indices.reverse();
  }
  return indices;
}

function compareNumbers(a, b, descending) {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return descending ? b - a : a - b;
}

function compareTexts(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Sum, entropy (of the row as it is, in nats), largest weight and how many there are and are positive.
 * @param {ArrayLike<number>} weights
 * @param {number} skip an index that the largest may not be, or -1
 */
export function summary(weights, skip = -1) {
  let sum = 0;
  let entropy = 0;
  let most = 0;
  let positive = 0;
  let unknown = 0;
  for (let i = 0; i < weights.length; i += 1) {
    const weight = weights[i];
    if (Number.isNaN(weight)) unknown += 1;
    if (!(weight > 0)) continue;
    sum += weight;
    entropy -= weight * Math.log(weight);
    positive += 1;
    if (i !== skip && weight > most) most = weight;
  }
  return { sum, entropy, most, positive, unknown, count: weights.length };
}

/**
 * Positions that somebody may mean who typed this: a position, a token exactly, as text, or a part of one.
 * @param {string} typed
 * @param {ArrayLike<string>} tokens all of the sequence
 * @returns {{positions: number[], how: string}} `how`: "position", "token", "part" or "none"
 */
export function meant(typed, tokens) {
  const number = /^\s*(-?\d+)\s*$/.exec(typed);
  if (number !== null) {
    const at = Number(number[1]);
    const place = at < 0 ? at + tokens.length : at;
    if (place >= 0 && place < tokens.length) return { positions: [place], how: "position" };
  }
  if (typed.trim() === "") return { positions: [], how: "none" };
  const plain = bare(typed);
  const tests = [
    ["token", (token) => token === typed],
    ["token", (token) => bare(token) === plain],
    ["part", (token) => bare(token).includes(plain)],
  ];
  for (const [how, test] of tests) {
    const positions = [];
    for (let i = 0; i < tokens.length; i += 1) if (test(tokens[i])) positions.push(i);
    if (positions.length > 0) return { positions, how };
  }
  return { positions: [], how: "none" };
}

/** A token without the marks that tokenizers write for a space, in lower case. */
function bare(token) {
  return token.replace(/[\u0120\u2581]/gu, " ").trim().toLowerCase() || token;
}

/**
 * A weight as a person reads it: four digits that count.
 * @param {number} weight
 * @returns {string}
 */
export function readable(weight) {
  if (Number.isNaN(weight)) return "–";
  if (weight === 0) return "0";
  if (Math.abs(weight) < 0.0001) return weight.toExponential(2).replace("e-", "e−");
  return weight.toFixed(4);
}

/**
 * The shortest digits that are this float32 again when they are read.
 * @param {number} weight
 * @returns {string}
 */
export function exact(weight) {
  if (!Number.isFinite(weight)) return Number.isNaN(weight) ? "nan" : weight > 0 ? "inf" : "-inf";
  const single = Math.fround(weight);
  for (let digits = 1; digits < 9; digits += 1) {
    const text = String(Number(single.toPrecision(digits)));
    if (Math.fround(Number(text)) === single) return text;
  }
  return String(Number(single.toPrecision(9)));
}

/**
 * Rows as text that a spreadsheet reads.
 * @param {(string|number)[][]} rows
 * @param {string} separator a tab or a comma; a field with a separator, quotes or line breaks is quoted
 * @returns {string} lines, the last with its end
 */
export function delimited(rows, separator) {
  const field = (value) => {
    const text = String(value);
    return text.includes(separator) || /["\r\n]/u.test(text) ? `"${text.replace(/"/gu, '""')}"` : text;
  };
  return rows.map((row) => `${row.map(field).join(separator)}\n`).join("");
}
