/** Curved lines between places on the screen. */

const BELOW = 3; // pixels under a word at which a line runs between two lines of text

/**
 * The way from one token to another: upright where they are on different lines of text, an arc above where they are on
 * one. Where they are in blocks beside each other it runs under the words, and crosses over in the gap between the
 * blocks. Pure.
 * @param {Box} from
 * @param {Box} to
 * @param {[number, number]|null} gutter left and right side of that gap; null: one block
 * @returns {{start: number[], curve: number[], end: number[]}} `curve`: a cubic one, x and y of both ends and, between,
 *   of both handles; a straight line goes from `start` to it, and from it to `end`
 * @typedef {{left: number, right: number, top: number, bottom: number}} Box
 */
export function way(from, to, gutter) {
  const middle = (box) => (box.left + box.right) / 2;
  const [x0, x1] = [middle(from), middle(to)];
  if (gutter !== null) {
    const [left, right] = x0 < x1 ? gutter : [gutter[1], gutter[0]];
    const [y0, y1] = [from.bottom + BELOW, to.bottom + BELOW];
    const pull = (right - left) * 0.6;
    return { start: [x0, y0], curve: [left, y0, left + pull, y0, right - pull, y1, right, y1], end: [x1, y1] };
  }
  const plain = (...curve) => ({ start: curve.slice(0, 2), curve, end: curve.slice(6) });
  const above = to.bottom <= from.top + 2;
  if (above || to.top >= from.bottom - 2) {
    const [y0, y1] = above ? [from.top, to.bottom] : [from.bottom, to.top];
    const pull = Math.max(18, Math.abs(y1 - y0) * 0.45) * (above ? -1 : 1);
    return plain(x0, y0, x0, y0 + pull, x1, y1 - pull, x1, y1);
  }
  const height = Math.min(46, 10 + Math.abs(x1 - x0) * 0.18);
  return plain(x0, from.top, x0, from.top - height, x1, to.top - height, x1, to.top);
}

/**
 * The gap between two blocks beside each other; null where they are not. Pure.
 * @param {Box} left
 * @param {Box} right
 * @returns {[number, number]|null}
 */
export function gutterOf(left, right) {
  return right.left >= left.right ? [left.right, right.left] : null;
}

/**
 * Where lines begin whose token is before or behind the text: the middle of its upper or lower edge. Pure.
 * @param {Box} frame
 * @param {boolean} above
 * @returns {Box}
 */
export function edgeOf(frame, above) {
  const x = (frame.left + frame.right) / 2;
  const y = above ? frame.top : frame.bottom;
  return { left: x, right: x, top: y, bottom: y };
}

/**
 * Draw curves on a canvas that covers `frame`, strongest on top.
 * @param {HTMLCanvasElement} canvas
 * @param {DOMRect} frame the place on the screen that it covers
 * @param {{from: Box, to: Box, share: number, gutter: [number, number]|null}[]} lines `share`: 0 to 1, of the largest weight
 * @param {string} colour
 */
export function drawLines(canvas, frame, lines, colour) {
  const density = Math.min(3, globalThis.devicePixelRatio || 1);
  const [width, height] = [Math.round(frame.width * density), Math.round(frame.height * density)];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.setTransform(density, 0, 0, density, -frame.left * density, -frame.top * density);
  pen.strokeStyle = colour;
  pen.fillStyle = colour;
  pen.lineCap = "round";
  for (const { from, to, share, gutter } of [...lines].sort((a, b) => a.share - b.share)) {
    const { start, curve, end } = way(from, to, gutter);
    pen.globalAlpha = 0.16 + 0.72 * Math.sqrt(share);
    pen.lineWidth = 0.75 + 4.25 * share;
    pen.beginPath();
    pen.moveTo(...start);
    pen.lineTo(curve[0], curve[1]);
    pen.bezierCurveTo(...curve.slice(2));
    pen.lineTo(...end);
    pen.stroke();
    pen.beginPath();
    pen.arc(...end, 1.5 + 1.75 * share, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.globalAlpha = 1;
}
