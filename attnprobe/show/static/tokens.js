/** Tokens of a sequence by position, asked for in blocks when one is first looked at. */

import { plain } from "./shown.js";

const BLOCK = 256;
const BLOCKS = 400; // that are kept: 100,000 tokens

/**
 * `at(i)` is a token as the tokenizer shows it, or "" until its block is here; `arrived` is called then. `textAt(i)` is the text that
 * it stands for, "" where the next token finishes its character; null until its block is here, and where texts are not known.
 */
export function tokensOf(source, run, sample, sequence, length, { arrived, failed }) {
  const blocks = new Map(); // in the order of their use
  function block(number) {
    let found = blocks.get(number);
    if (found === undefined) {
      found = { tokens: null, texts: null };
      const start = number * BLOCK;
      source
        .ask("tokens", { run, sample, sequence, start, stop: Math.min(length, start + BLOCK) })
        .then(({ head }) => {
          found.tokens = head.tokens;
          found.texts = head.texts ?? null;
          arrived();
        })
        .catch((error) => failed(error)); // and is not asked for again
    } else {
      blocks.delete(number);
    }
    blocks.set(number, found);
    if (blocks.size > BLOCKS) blocks.delete(blocks.keys().next().value);
    return found;
  }
  /** Answers of all blocks of a range, put together and cut. */
  async function range(start, stop, of) {
    const first = Math.max(0, start);
    const last = Math.min(length, stop);
    const parts = [];
    for (let at = first - (first % BLOCK); at < last; at += BLOCK) {
      parts.push(source.ask("tokens", { run, sample, sequence, start: at, stop: Math.min(length, at + BLOCK) }));
    }
    const found = (await Promise.all(parts)).flatMap(({ head }) => of(head));
    return found.slice(first % BLOCK, (first % BLOCK) + last - first);
  }

  const here = (position, name) => block(Math.floor(position / BLOCK))[name]?.[position % BLOCK];
  const inside = (position) => position >= 0 && position < length;

  return {
    length,
    at: (position) => (inside(position) ? here(position, "tokens") : null) ?? "",
    textAt: (position) => (inside(position) ? here(position, "texts") : null) ?? null,
    /** All tokens of a range, once they are here. */
    range: (start, stop) => range(start, stop, (head) => head.tokens),
    /** The same as text, token by token; as the tokenizer shows them where no text is known. */
    pieces: (start, stop) => range(start, stop, (head) => head.texts ?? head.tokens.map(plain)),
  };
}
