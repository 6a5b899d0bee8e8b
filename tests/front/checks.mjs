// What several tests use: seeded random numbers, and references that are written another way than what they check.

/** Random numbers from a seed, 0 <= x < 1 (mulberry32): a failing case can be run again. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number, low <= n < high. */
export function whole(random, low, high) {
  return low + Math.floor(random() * (high - low));
}

/** Shapes of maps: square and not, below, at and above multiples of 256. */
export function shapes(random, count) {
  const fixed = [[1, 1], [1, 5000], [5000, 1], [256, 256], [257, 255], [512, 1025], [16384, 16384], [40000, 300]];
  const drawn = Array.from({ length: count }, () => [whole(random, 1, 20000), whole(random, 1, 20000)]);
  return [...fixed, ...drawn];
}
