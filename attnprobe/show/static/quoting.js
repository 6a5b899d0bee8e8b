/** Python literals. Pure. */

const NAMED = { "\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * A Python string literal that means exactly this text. As `repr` writes it, but always in double quotes: what does not
 * print (controls, marks of direction, spaces other than " ", unpaired surrogates) is escaped.
 * @param {string} text
 * @returns {string}
 */
export function quoted(text) {
  const letters = Array.from(String(text), (letter) => {
    if (Object.hasOwn(NAMED, letter)) return NAMED[letter];
    if (letter === " " || !/[\p{C}\p{Z}]/u.test(letter)) return letter;
    const code = letter.codePointAt(0);
    if (code < 0x100) return `\\x${hex(code, 2)}`;
    return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
  });
  return `"${letters.join("")}"`;
}

function hex(code, digits) {
  return code.toString(16).padStart(digits, "0");
}

/**
 * A slice of a Python index: `:` for all, `20000:20256`, `:512`.
 * @param {number} start
 * @param {number} stop
 * @param {number} length
 * @returns {string}
 */
export function slice(start, stop, length) {
  return `${start > 0 ? start : ""}:${stop < length ? stop : ""}`;
}
