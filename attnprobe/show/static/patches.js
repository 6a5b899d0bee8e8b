// Which patches a view needs. A patch is {level, down, across}: up to 256 x 256 cells, a cell being 2**level x 2**level weights.

/** Cells on a side of a patch. */
export const PATCH = 256;

/**
 * The finest level whose cells are at least one device pixel: of the cells of a coarser one detail would be hidden, of a
 * finer one some would not be drawn, and the largest weight of all could be among them.
 * @param {number} pixels device pixels a weight
 * @param {number} last the coarsest level that there is
 */
export function levelFor(pixels, last) {
  const level = Math.ceil(-Math.log2(pixels) - 1e-6);
  return Math.min(Math.max(level, 0), last);
}

/** How many cells of a level cover a length. */
export function cellsOf(length, level) {
  return Math.ceil(length / 2 ** level);
}

/** Rows and columns of cells of a patch: fewer than 256 at the sides of the map. */
export function sizeOf({ level, down, across }, shape) {
  return [down, across].map((at, axis) => Math.max(Math.min(cellsOf(shape[axis], level) - at * PATCH, PATCH), 0));
}

/** What a patch covers, in weights: {top, bottom, left, right}, no further than the map. */
export function rectangleOf({ level, down, across }, shape) {
  const side = PATCH * 2 ** level;
  return {
    top: down * side,
    bottom: Math.min((down + 1) * side, shape[0]),
    left: across * side,
    right: Math.min((across + 1) * side, shape[1]),
  };
}

/**
 * The patches of a level that a part of a map needs, those nearest to the centre first.
 * @param {{top: number, bottom: number, left: number, right: number}} part in weights, with fractions
 * @param {number[]} shape
 * @param {number} level
 * @param {number} around how many further patches on each side
 */
export function patchesOf(part, shape, level, around = 0) {
  if (!(part.bottom > part.top && part.right > part.left)) return [];
  const side = PATCH * 2 ** level;
  const range = (low, high, length) => [
    Math.max(Math.floor(low / side) - around, 0),
    Math.min(Math.ceil(high / side) + around, Math.ceil(length / side)),
  ];
  const [top, bottom] = range(part.top, part.bottom, shape[0]);
  const [left, right] = range(part.left, part.right, shape[1]);
  const found = [];
  for (let down = top; down < bottom; down++) {
    for (let across = left; across < right; across++) found.push({ level, down, across });
  }
  const centre = [(part.top + part.bottom) / 2 / side - 0.5, (part.left + part.right) / 2 / side - 0.5];
  const distance = (patch) => Math.hypot(patch.down - centre[0], patch.across - centre[1]);
  return found.sort((a, b) => distance(a) - distance(b));
}

/**
 * The patches of coarser levels that a patch is a part of, the next one first, and which part of it that is.
 * @param {{level: number, down: number, across: number}} patch
 * @param {number[]} shape
 * @param {number} last the coarsest level
 * @returns {{patch: object, x: number, y: number, width: number, height: number}[]} in cells of it, with fractions
 */
export function coarser(patch, shape, last) {
  const rectangle = rectangleOf(patch, shape);
  const found = [];
  for (let level = patch.level + 1; level <= last; level++) {
    const times = 2 ** (level - patch.level);
    const down = Math.floor(patch.down / times);
    const across = Math.floor(patch.across / times);
    const cell = 2 ** level;
    found.push({
      patch: { level, down, across },
      x: rectangle.left / cell - across * PATCH,
      y: rectangle.top / cell - down * PATCH,
      width: (rectangle.right - rectangle.left) / cell,
      height: (rectangle.bottom - rectangle.top) / cell,
    });
  }
  return found;
}

/** The coarsest level that is of use: the first at which the whole map is one patch, or the last there is. */
export function topLevel(shape, last) {
  const longest = Math.max(...shape, 1);
  return Math.min(Math.max(Math.ceil(Math.log2(longest / PATCH)), 0), last);
}

/**
 * What to have at hand once what is seen is there: one ring around it, and the next coarser level for zooming out.
 */
export function ahead(part, shape, level, last) {
  const next = level < last ? patchesOf(part, shape, level + 1) : [];
  return [...next, ...patchesOf(part, shape, level, 1)];
}

/** A patch's name; `of` names the map. */
export function keyOf({ level, down, across, of = "" }) {
  return `${of}/${level}/${down}/${across}`;
}
