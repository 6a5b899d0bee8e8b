/** Tokens of a sequence by position, asked for in blocks when one is first looked at. */

const BLOCK = 256;
const BLOCKS = 400; // that are kept: 100,000 tokens

/** `at(i)` is a token, or "" until its block is here; `arrived` is called then. */
export function tokensOf(source, run, sample, sequence, length, { arrived, failed }) {
  const blocks = new Map(); // in the order of their use
  function block(number) {
    let found = blocks.get(number);
    if (found === undefined) {
      found = { tokens: null };
      const start = number * BLOCK;
      source
        .ask("tokens", { run, sample, sequence, start, stop: Math.min(length, start + BLOCK) })
        .then(({ head }) => {
          found.tokens = head.tokens;
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
  return {
    length,
    at(position) {
      if (!(position >= 0 && position < length)) return "";
      return block(Math.floor(position / BLOCK)).tokens?.[position % BLOCK] ?? "";
    },
    /** All tokens of a range, once they are here. */
    async range(start, stop) {
      const first = Math.max(0, start);
      const last = Math.min(length, stop);
      const parts = [];
      for (let at = first - (first % BLOCK); at < last; at += BLOCK) {
        parts.push(source.ask("tokens", { run, sample, sequence, start: at, stop: Math.min(length, at + BLOCK) }));
      }
      const tokens = (await Promise.all(parts)).flatMap(({ head }) => head.tokens);
      return tokens.slice(first % BLOCK, (first % BLOCK) + last - first);
    },
  };
}
