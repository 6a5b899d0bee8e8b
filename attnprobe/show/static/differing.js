/** One map minus another, patch by patch. */

import { NUMBERS, bitsOf } from "./bfloat16.js";

const ROUNDING = 2 ** -7; // a number in 16 bits is within 2**-8 of its own: by so much, two may differ that are all but equal

/** A difference of two weights of 16 bits; zero if it is within their rounding, NaN if either is. */
export function minus(a, b) {
  const difference = a - b;
  return Math.abs(difference) <= ROUNDING * Math.max(Math.abs(a), Math.abs(b)) ? 0 : difference;
}

/**
 * The cells that two patches have in common, subtracted.
 * @param {{values: Uint16Array, head: {shape: number[]}}} first
 * @param {{values: Uint16Array, head: {shape: number[]}}} second
 * @returns {{cells: Uint16Array, shape: number[]}}
 */
export function subtract(first, second) {
  const shape = first.head.shape.map((length, axis) => Math.min(length, second.head.shape[axis]));
  const cells = new Uint16Array(shape[0] * shape[1]);
  for (let row = 0, i = 0; row < shape[0]; row++) {
    const a = row * first.head.shape[1];
    const b = row * second.head.shape[1];
    for (let column = 0; column < shape[1]; column++) {
      cells[i++] = bitsOf(minus(NUMBERS[first.values[a + column]], NUMBERS[second.values[b + column]]));
    }
  }
  return { cells, shape };
}
