// Which part of a map is looked at. Pure: a view is {row, column, pixels}: the weight at the centre of the area (in weights,
// with fractions) and how many pixels of CSS a weight is wide. An area is {width, height} in those pixels, a shape [rows, columns].

/** A weight is drawn at most this large. */
export const LARGEST = 64;

/** The whole map, in the middle. */
export function fit(shape, area) {
  return { row: shape[0] / 2, column: shape[1] / 2, pixels: fitting(shape, area) };
}

/** How large a weight is when the whole map just fits. */
export function fitting([rows, columns], area) {
  return Math.min(area.width / Math.max(columns, 1), area.height / Math.max(rows, 1), LARGEST);
}

/**
 * The nearest view that is allowed: never smaller than the whole map, never larger than LARGEST, and with the centre so near
 * to the map's middle as its size asks for: the whole map is in the middle, of a part the centre may reach the map's side.
 * Whatever was zoomed into with the pointer on the map is allowed, so that what is under the pointer stays there.
 */
export function clamp(view, shape, area) {
  const whole = fitting(shape, area);
  const pixels = Math.min(Math.max(view.pixels, whole), LARGEST);
  const [row, column] = [view.row, view.column].map((centre, axis) => {
    const middle = shape[axis] / 2;
    const away = middle * (1 - whole / pixels);
    return Math.min(Math.max(centre, middle - away), middle + away);
  });
  return { row, column, pixels };
}

/** Larger by a factor, with the weight under a point of the area staying there (before clamp). */
export function zoomAt(view, factor, x, y, area) {
  const pixels = view.pixels * factor;
  const { row, column } = weightAtPoint(view, x, y, area);
  return { row: row - (y - area.height / 2) / pixels, column: column - (x - area.width / 2) / pixels, pixels };
}

/** Dragged by some pixels: what is seen goes along. */
export function pan(view, dx, dy) {
  return { ...view, row: view.row - dy / view.pixels, column: view.column - dx / view.pixels };
}

/** The place in the map, with fractions, of a point of the area. */
export function weightAtPoint(view, x, y, area) {
  return { row: view.row + (y - area.height / 2) / view.pixels, column: view.column + (x - area.width / 2) / view.pixels };
}

/** The point of the area at which a place of the map is drawn. */
export function pointOf(view, row, column, area) {
  return {
    x: area.width / 2 + (column - view.column) * view.pixels,
    y: area.height / 2 + (row - view.row) * view.pixels,
  };
}

/** The query and key at a point, or null beside the map. */
export function pick(view, x, y, area, shape) {
  const at = weightAtPoint(view, x, y, area);
  const query = Math.floor(at.row);
  const key = Math.floor(at.column);
  return query >= 0 && key >= 0 && query < shape[0] && key < shape[1] ? { query, key } : null;
}

/** What is seen of the map, in weights with fractions: {top, bottom, left, right}; empty where bottom <= top. */
export function visible(view, area, shape) {
  const down = area.height / 2 / view.pixels;
  const across = area.width / 2 / view.pixels;
  return {
    top: Math.max(view.row - down, 0),
    bottom: Math.min(view.row + down, shape[0]),
    left: Math.max(view.column - across, 0),
    right: Math.min(view.column + across, shape[1]),
  };
}

/** Where what is seen of the map is drawn, in pixels of the canvas: {x, y, width, height}; `origin` is the area's corner. */
export function frameOf(view, area, shape, origin) {
  const part = visible(view, area, shape);
  const from = pointOf(view, part.top, part.left, area);
  const size = { width: (part.right - part.left) * view.pixels, height: (part.bottom - part.top) * view.pixels };
  return { x: origin.x + from.x, y: origin.y + from.y, width: Math.max(size.width, 1), height: Math.max(size.height, 1) };
}

/** Moved as little as needed so that a weight is seen. */
export function reveal(view, query, key, area, shape) {
  const down = Math.max(area.height / 2 / view.pixels - 1, 0);
  const across = Math.max(area.width / 2 / view.pixels - 1, 0);
  const row = Math.min(Math.max(view.row, query + 0.5 - down), query + 0.5 + down);
  const column = Math.min(Math.max(view.column, key + 0.5 - across), key + 0.5 + across);
  return clamp({ ...view, row, column }, shape, area);
}

/** The view that the state means: `span` weights along the area's shorter side, or the whole map if it is null. */
export function fromState({ row, column, span }, shape, area) {
  const whole = fit(shape, area);
  if (!(span > 0)) return whole;
  const pixels = Math.min(area.width, area.height) / span;
  return clamp({ row: row ?? whole.row, column: column ?? whole.column, pixels }, shape, area);
}

/** What the state keeps of a view: the same whatever the window's size. */
export function toState(view, shape, area) {
  if (view.pixels <= fitting(shape, area)) return { row: null, column: null, span: null };
  return { row: view.row, column: view.column, span: Math.min(area.width, area.height) / view.pixels };
}
