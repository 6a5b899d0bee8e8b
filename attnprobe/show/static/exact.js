/** Exact weights under the pointer, in blocks: what a person reads is never rounded to 16 bits. */

const BLOCK = 32;
const KEPT = 100;
const REST = 70; // milliseconds that the pointer rests before a block is asked for
const RETRY = 3000; // and after which one that failed may be asked for again

/** `at(...)` gives a weight, undefined until it is here, null if it cannot be had; `changed` is called when a block came. */
export function createExact(source, { changed }) {
  const blocks = new Map(); // in the order of their use
  const startOf = (at) => Math.floor(at / BLOCK) * BLOCK;
  const keyOf = (place, query, key) => JSON.stringify([place, startOf(query), startOf(key)]);
  let waiting = 0;
  let timer = null;
  let wanted = [];

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
      .catch(() => {
        block.values = null;
        if (source.kind === "file") return; // which does not hold all of them
        setTimeout(() => blocks.get(name) === block && blocks.delete(name), RETRY);
      })
      .finally(() => {
        waiting--;
        changed();
      });
  }

  function rested() {
    timer = null;
    for (const one of wanted) ask(...one);
  }

  return {
    at(place, query, key) {
      const name = keyOf(place, query, key);
      const block = blocks.get(name);
      if (!block?.values) return block?.values;
      blocks.delete(name);
      blocks.set(name, block);
      return block.values[(query - block.top) * block.width + key - block.left];
    },
    /** Ask for the blocks of some weights, [place, shape, query, key] each, once nothing else was wanted for a moment. */
    want(some) {
      clearTimeout(timer);
      wanted = some;
      timer = some.length ? setTimeout(rested, REST) : null;
    },
    /** Of the blocks that a part of a map is in, one weight each. */
    corners(part) {
      const found = [];
      for (let query = startOf(part.top); query < part.bottom; query += BLOCK) {
        for (let key = startOf(part.left); key < part.right; key += BLOCK) found.push([query, key]);
      }
      return found;
    },
    get busy() {
      return waiting > 0 || timer !== null;
    },
  };
}
