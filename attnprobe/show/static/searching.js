/** Words in running text, which are mostly of several tokens. Pure. */

const NEAR = 3; // words that are proposed

/**
 * Where a text stands that goes over tokens; upper and lower case are alike, and so are all kinds of space.
 * @param {string} typed
 * @param {ArrayLike<string>} pieces the texts of all tokens: together they are the text
 * @returns {{from: number, at: number}[]} its first and its last token, of each place, in order
 */
export function placesOf(typed, pieces) {
  const words = typed.trim().toLowerCase().split(/\s+/u).filter(Boolean);
  if (words.length === 0) return [];
  const pattern = new RegExp(words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/gu, "\\$&")).join("\\s+"), "gu");
  const ends = new Uint32Array(pieces.length); // of each piece in the text
  const parts = [];
  for (let i = 0, end = 0; i < pieces.length; i += 1) {
    const part = pieces[i].replace(/\\[rnt]/gu, " ").toLowerCase();
    parts.push(part);
    end += part.length;
    ends[i] = end;
  }
  const found = [];
  let piece = 0;
  for (const { index, 0: text } of parts.join("").matchAll(pattern)) {
    while (ends[piece] <= index) piece += 1;
    let last = piece;
    while (ends[last] < index + text.length) last += 1;
    if (found.at(-1)?.at !== last) found.push({ from: piece, at: last });
  }
  return found;
}

/**
 * Words of the text that begin most like what was typed, at least by two letters.
 * @param {string} typed
 * @param {ArrayLike<string>} pieces
 * @returns {string[]} at most three, the nearest first
 */
export function nearTo(typed, pieces) {
  const wanted = typed.trim().toLowerCase();
  const text = pieces.join("").replace(/\\[rnt]/gu, " ");
  const alike = new Map();
  for (const [word] of text.matchAll(/[\p{L}\p{M}\p{N}_]+/gu)) {
    if (alike.has(word)) continue;
    const lower = word.toLowerCase();
    let letters = 0;
    while (letters < lower.length && lower[letters] === wanted[letters]) letters += 1;
    alike.set(word, letters);
  }
  const near = [...alike].filter(([, letters]) => letters >= 2);
  return near.sort((one, other) => other[1] - one[1] || one[0].length - other[0].length).slice(0, NEAR).map(([word]) => word);
}
