// Numbers in 16 bits, as they come from Python: the upper half of a float32, so that a weight's bits are an index.

/** The number that each of the 65,536 patterns of bits stands for. */
export const NUMBERS = new Float32Array(Uint32Array.from({ length: 65536 }, (_, bits) => bits << 16).buffer);

const number = new Float32Array(1);
const word = new Uint32Array(number.buffer);

/**
 * The bits of the nearest bfloat16; of two that are equally near, the even one, as PyTorch rounds.
 * @param {number} value
 * @returns {number} 0 to 65,535
 */
export function bitsOf(value) {
  number[0] = value;
  if (value !== value) return 0x7fc0;
  return (word[0] + 0x7fff + ((word[0] >>> 16) & 1)) >>> 16;
}

/**
 * Whether nothing was kept: NaN, of either sign.
 * @param {number} bits
 */
export function isMissing(bits) {
  return (bits & 0x7fff) > 0x7f80;
}
