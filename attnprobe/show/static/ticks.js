/** Round numbers for axes, and numbers as short texts. */

const STEPS = [1, 2, 5, 10];

/**
 * Round numbers within limits, about as many as are wanted and never more than twice that.
 * A whole-number axis (positions) has no ticks between whole numbers.
 */
export function linearTicks(low, high, wanted = 5, whole = false) {
  if (!(high > low) || !Number.isFinite(high - low)) return Number.isFinite(low) ? [low] : [];
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * STEPS.find((one) => one * power >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => tidy((first + i) * step, step));
}

/** Powers of ten within limits, with 2 and 5 times where these are few; of many, every n-th. */
export function logTicks(low, high, wanted = 5) {
  if (!(low > 0) || !(high > low)) return low > 0 ? [low] : [];
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const powers = last - first + 1;
  if (powers > wanted) {
    const each = Math.ceil(powers / wanted);
    return range(first, last).filter((power) => (power - last) % each === 0).map(ten);
  }
  const factors = powers * 3 <= wanted + 2 ? [1, 2, 5] : [1];
  const found = range(first - 1, last).flatMap((power) => factors.map((factor) => tidy(factor * ten(power), ten(power))));
  const inside = found.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
  return inside.length > 1 ? inside : linearTicks(low, high, wanted).filter((tick) => tick > 0);
}

/** A number as a short text: 0.12, 3.4, 20k, 1.5M, 1e-5. */
export function short(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  if (size >= 1e9) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  if (size >= 999_500) return `${trimmed(value / 1e6, digits)}M`;
  if (size >= 10_000) return `${trimmed(value / 1e3, digits)}k`;
  return trimmed(value, size >= 1000 ? 4 : digits);
}

/** A number as a person reads it in a table: three digits, thousands apart. */
export function spoken(value) {
  if (!Number.isFinite(value)) return "none";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

function trimmed(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

function tidy(value, step) {
  const digits = Math.max(0, Math.min(20, 2 - Math.floor(Math.log10(step))));
  return Number(value.toFixed(digits)) + 0; // and never -0
}

function range(first, last) {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}

function ten(power) {
  return Number(`1e${power}`);
}
