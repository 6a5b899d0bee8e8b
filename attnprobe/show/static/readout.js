/** What a map says in words: the weight under the crosshair, and how the picture came about. */

import { exactText, grouped, roughText } from "./numbers.js";

const quoted = (token) => (token ? ` “${token}”` : "");

/**
 * What is under the crosshair.
 * @param {object} options
 * @param {{query: number, key: number}} options.cross
 * @param {string[]} options.tokens of the query and the key, "" if not known
 * @param {(number|null|undefined)} options.exact null: not to be had; undefined: not yet
 * @param {?{level: number, value: number}} options.cell what the picture shows there
 * @param {string} options.how
 * @param {boolean} options.signed whether it is a difference
 */
export function crossText({ cross, tokens, exact, cell, how, signed }) {
  const place = `query ${grouped(cross.query)}${quoted(tokens[0])} → key ${grouped(cross.key)}${quoted(tokens[1])}`;
  const parts = [];
  if (typeof exact === "number") parts.push(exactText(exact));
  else if (cell?.level === 0) parts.push(Number.isNaN(cell.value) ? "not kept" : `about ${roughText(cell.value)}`);
  else parts.push(exact === null ? "the weight itself is not to be had here" : "…");
  if (cell?.level > 0) {
    const side = grouped(2 ** cell.level);
    parts.push(`${signed ? "difference of the " : ""}${how === "mean" ? "mean" : "largest"} of ${side} × ${side}: ${roughText(cell.value)}`);
  }
  return `${place}: ${parts.join(" · ")}`;
}

/**
 * How the picture came about.
 * @param {object} options `level`, `absent`, `pixels` of CSS a weight, `how`, `infos` answers of `head`, `signed`, `skip`
 *   (`level` null: there is none)
 * @returns {[string, string][]} texts, each with what it means
 */
export function pictureText({ level, absent, pixels, how, infos, signed, skip }) {
  const [info] = infos;
  if (level === null) return [["this map is not in this file", "Open the run itself, or export more of it"]];
  const side = grouped(2 ** level);
  const pool = how === "mean" ? "mean" : "largest";
  const parts = [
    [level ? `level ${level}: ${pool} of ${side} × ${side}` : "level 0: single weights", "A cell of this picture"],
    [pixels >= 1 ? `${roughNumber(pixels)} px a weight` : `${roughNumber(1 / pixels)} weights a px`, "How large it is drawn"],
    [info.dtype, "How the weights are kept"],
  ];
  if (Number.isFinite(info.underflow)) {
    parts.push([`underflow ${percent(info.underflow)}`, `Of the weights that can be above zero, those kept as zero or below ${info.dtype}'s smallest normal number`]);
  }
  if (Number.isFinite(info.row_sum_error)) {
    parts.push([`rows sum to 1 within ${info.row_sum_error.toExponential(0)}`, info.sampled ? `Of ${grouped(info.sampled)} rows` : "Of all rows"]);
  }
  if (info.fidelity) parts.push([info.fidelity, "How near the weights are to the model's own"]);
  if (signed) parts.push(["differences within the rounding of 16 bits are drawn as none: specks of the page's colour", "1/128 of the larger of the two; the weight under the pointer is subtracted exactly"]);
  if (skip) parts.push(["first key hidden", "Its cells are striped"]);
  if (absent) parts.push(["finer levels are not in this file", "Open the run itself to see single weights"]);
  return parts;
}

function percent(share) {
  const value = 100 * share;
  return value === 0 ? "0 %" : value < 0.1 ? "< 0.1 %" : `${roughNumber(value)} %`;
}

function roughNumber(value) {
  return value >= 100 ? grouped(Math.round(value)) : String(Number(value.toPrecision(2)));
}
