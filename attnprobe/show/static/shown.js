/** Tokens as a person reads them. Pure. */

const LONGEST = 48; // characters of a token that are shown; its title has all

/**
 * A token in running text: the marks that tokenizers write for a space and for a line's end are what they mean, and
 * one that is very long is cut.
 * @param {string} token as answered: control characters are written as `\n`
 * @param {number} position its place, shown where there is no text
 * @returns {{text: string, breaks: boolean}} `breaks`: a line ends behind it
 */
export function running(token, position) {
  const text = plain(token).replace(/\\r\\n|\\n/gu, "↵");
  return { text: text === "" ? `[${position}]` : cut(text, LONGEST), breaks: text.endsWith("↵") };
}

/** A token, the marks of tokenizers in it written as what they mean. */
export function plain(token) {
  return token.replace(/[\u0120\u2581]/gu, " ").replace(/\u010a|<0x0A>/gu, "\\n");
}

/**
 * A token as it stands in running text: as `running`, of its text where that is known, else of itself.
 * @param {string} token
 * @param {?string} text "" where the next token finishes its character
 * @param {number} position
 */
export function asText(token, text, position) {
  if (text === null || text === undefined) return running(token, position);
  const written = text.replace(/\\r\\n|\\n/gu, "↵");
  return { text: cut(written, LONGEST), breaks: written.endsWith("↵") };
}

/**
 * What a token is called in a sentence beside running text: its text, or, where it has none of its own, itself.
 * @param {{at(position: number): string, textAt(position: number): ?string}} tokens
 * @param {number} position
 */
export function called(tokens, position) {
  return tokens.textAt(position) || tokens.at(position);
}

/** A token in full, with the text that it stands for where that is known and differs. */
export function textTitle(token, text) {
  return text && text !== token ? `${token}: ${inQuotes(text)}` : token;
}

/**
 * Text of at most so many characters (whole ones), the last of which is "…" where it was cut.
 * @param {string} text
 * @param {number} most
 * @returns {string}
 */
export function cut(text, most) {
  if (text.length <= most) return text;
  const letters = Array.from(text.slice(0, 2 * most));
  return letters.length <= most && text.length <= 2 * most ? text : `${letters.slice(0, most - 1).join("")}…`;
}

/**
 * A token in a sentence: in curly quotes, cut, and each on its own as to the direction of writing.
 * @param {string} token
 * @returns {string}
 */
export function inQuotes(token) {
  return `“\u2068${cut(token, 24)}\u2069”`;
}

/**
 * Black or white, whichever reads better on a colour.
 * @param {string} colour "#rrggbb"
 * @returns {string}
 */
export function inkOn(colour) {
  const part = (at) => {
    const share = parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
  return light > 0.179 ? "#000000" : "#ffffff";
}

/**
 * A weight's place on the colours of a row, as in the terminal: the square root of its share of the largest.
 * @param {number} weight
 * @param {number} most the largest
 * @returns {number} 0 to 1
 */
export function levelOf(weight, most) {
  return weight > 0 && most > 0 ? Math.min(1, Math.sqrt(weight / most)) : 0;
}

/**
 * The colours behind text: those of the map, which fade into the page where there is next to no weight.
 * @param {{ramp: (t: number) => string, background: string}} colours of `app.colours`
 * @returns {(level: number) => string} "#rrggbb"
 */
export function shadeOf({ ramp, background }) {
  const page = /^#[0-9a-f]{6}$/iu.test(background) ? background : "#ffffff";
  return (level) => mixed(page, ramp(level), Math.min(1, 2.2 * level));
}

function mixed(one, other, share) {
  const part = (at) => {
    const [a, b] = [one, other].map((colour) => parseInt(colour.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * share).toString(16).padStart(2, "0");
  };
  return `#${part(1)}${part(3)}${part(5)}`;
}
