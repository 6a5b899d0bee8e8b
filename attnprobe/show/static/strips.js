/** The largest of each row of cells, for the scale by row: asked for once a strip of patches. */

const KEPT = 300;

/** `get(params)` gives a Float32Array, null until it is here, false if it cannot be had; `changed` is called then. */
export function createStrips(source, { changed, failed }) {
  const strips = new Map(); // in the order of asking
  return {
    get(params) {
      const key = JSON.stringify(params);
      if (!strips.has(key)) {
        strips.set(key, null);
        if (strips.size > KEPT) strips.delete(strips.keys().next().value);
        source
          .ask("strip", params)
          .then(({ values }) => strips.set(key, values))
          .catch((error) => {
            strips.set(key, false);
            failed(error);
          })
          .finally(changed);
      }
      return strips.get(key);
    },
    get busy() {
      return [...strips.values()].includes(null);
    },
  };
}
