/** Exact weights under the pointer, in blocks: what a person reads is never rounded to 16 bits. */

import { debounce } from "./dom.js";

const BLOCK = 32;
const KEPT = 100;
const REST = 70; // milliseconds that the pointer rests before a block is asked for

/** `at(...)` gives a weight, undefined until it is here, null if it cannot be had; `changed` is called when a block came. */
export function createExact(source, { changed }) {
  const blocks = new Map(); // in the order of their use
  const startOf = (at) => Math.floor(at / BLOCK) * BLOCK;
  const keyOf = (place, query, key) => JSON.stringify([place, startOf(query), startOf(key)]);
  let waiting = 0;

  function ask(place, shape, query, key) {
    const name = keyOf(place, query, key);
    if (blocks.has(name)) return;
    const [top, left] = [startOf(query), startOf(key)];
    const [bottom, right] = [Math.min(top + BLOCK, shape[0]), Math.min(left + BLOCK, shape[1])];
    const block = { values: undefined, width: right - left, top, left };
    blocks.set(name, block);
    if (blocks.size > KEPT) blocks.delete(blocks.keys().next().value);
    waiting++;
    source
      .ask("weights", { ...place, top, bottom, left, right })
      .then(({ values }) => (block.values = values))
      .catch(() => (block.values = null)) // an HTML file does not hold them
      .finally(() => {
        waiting--;
        changed();
      });
  }

  const later = debounce(REST, (...wanted) => wanted.forEach((one) => ask(...one)));

  return {
    at(place, query, key) {
      const name = keyOf(place, query, key);
      const block = blocks.get(name);
      if (!block?.values) return block?.values;
      blocks.delete(name);
      blocks.set(name, block);
      return block.values[(query - block.top) * block.width + key - block.left];
    },
    /** Ask for the blocks of some weights once the pointer rests: [place, shape, query, key] each. */
    want: (wanted) => later(...wanted),
    get busy() {
      return waiting > 0;
    },
    clear: () => blocks.clear(),
  };
}
