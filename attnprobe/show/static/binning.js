/** Many numbers as few: bands of a curve by pixel, means over heads, the nearest of some points. NaN is "none". */

/**
 * The smallest, mean and largest of equal stretches of a curve, so that no spike is lost however long it is.
 * At most `bins` stretches, fewer where there are fewer numbers; a stretch without a number is NaN.
 */
export function band(values, bins) {
  const count = Math.max(0, Math.min(Math.floor(bins), values.length));
  const [low, mean, high] = [0, 0, 0].map(() => new Float32Array(count).fill(NaN));
  for (let bin = 0; bin < count; bin++) {
    const stop = edge(bin + 1, count, values.length);
    let [smallest, largest, sum, some] = [Infinity, -Infinity, 0, 0];
    for (let i = edge(bin, count, values.length); i < stop; i++) {
      const value = values[i];
      if (!Number.isFinite(value)) continue;
      if (value < smallest) smallest = value;
      if (value > largest) largest = value;
      sum += value;
      some++;
    }
    if (some) [low[bin], mean[bin], high[bin]] = [smallest, sum / some, largest];
  }
  return { low, mean, high };
}

/** Where a stretch starts: the number of its first value. */
export function edge(bin, bins, length) {
  return Math.floor((bin * length) / bins);
}

/** The mean of each column of some rows of equal length, over those that are numbers. */
export function meanOfRows(rows) {
  const length = rows.length ? rows[0].length : 0;
  const [sums, counts] = [new Float64Array(length), new Uint32Array(length)];
  for (const row of rows) {
    for (let i = 0; i < length; i++) {
      if (!Number.isFinite(row[i])) continue;
      sums[i] += row[i];
      counts[i]++;
    }
  }
  return Float32Array.from(sums, (sum, i) => (counts[i] ? sum / counts[i] : NaN));
}

/** Smallest and largest number of some lists, or null where there is none. */
export function extent(...lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : null;
}

/** The number of the nearest `{x, y}` within a radius, the first of equals; -1 where none is so near. */
export function nearest(points, x, y, radius = Infinity) {
  let [found, least] = [-1, radius * radius];
  points.forEach((point, i) => {
    const away = (point.x - x) ** 2 + (point.y - y) ** 2;
    if (away < least || (away === least && found < 0)) [found, least] = [i, away];
  });
  return found;
}

/**
 * Distances that a bin of `distances` holds, as text: 0, 1, 2–3, 4–7, ... from its lower edge.
 */
export function binName(edgeFrom) {
  return edgeFrom < 2 ? String(edgeFrom) : `${thousand(edgeFrom)}–${thousand(2 * edgeFrom - 1)}`;
}

function thousand(value) {
  return value >= 10_000 ? `${Math.round(value / 1000)}k` : String(value);
}

/** The numbers of an axis of an answer: a list, or `{start, step}` and how many. */
export function coordinates(coords, count) {
  if (Array.isArray(coords)) return coords;
  const { start = 0, step = 1 } = coords ?? {};
  return Array.from({ length: count }, (_, i) => start + i * step);
}
