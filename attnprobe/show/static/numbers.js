/** Numbers as text. */

const GROUPED = new Intl.NumberFormat("en");

/** 16,384 */
export function grouped(value) {
  return GROUPED.format(value);
}

/** The fewest digits that say exactly which float32 a weight is. */
export function exactText(value) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not kept" : String(value);
  let digits = 1;
  while (digits < 9 && Math.fround(Number(value.toPrecision(digits))) !== value) digits++;
  return tidy(value, digits);
}

/** About a weight: what 16 bits are good for. */
export function roughText(value) {
  if (value === 0) return "0";
  return Number.isFinite(value) ? tidy(value, 2) : "not kept";
}

function tidy(value, digits) {
  return Math.abs(value) < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
}
