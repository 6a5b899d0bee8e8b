/** Curved lines between places on the screen. */

/**
 * The curve from one token to another: upright where they are on different lines of text, an arc above where they are
 * on one, and from side to side between two blocks. Pure.
 * @param {Box} from @param {Box} to
 * @param {boolean} across whether they are in blocks beside each other
 * @returns {number[]} a cubic curve: x, y of both ends and, between, of both handles
 * @typedef {{left: number, right: number, top: number, bottom: number}} Box
 */
export function curve(from, to, across) {
  const middle = (box) => (box.left + box.right) / 2;
  const [x0, x1] = [middle(from), middle(to)];
  if (across) {
    const right = x1 > x0;
    const ends = [right ? from.right : from.left, right ? to.left : to.right];
    const [y0, y1] = [(from.top + from.bottom) / 2, (to.top + to.bottom) / 2];
    const pull = (ends[1] - ends[0]) / 2;
    return [ends[0], y0, ends[0] + pull, y0, ends[1] - pull, y1, ends[1], y1];
  }
  const above = to.bottom <= from.top + 2;
  const below = to.top >= from.bottom - 2;
  if (above || below) {
    const [y0, y1] = above ? [from.top, to.bottom] : [from.bottom, to.top];
    const pull = Math.max(18, Math.abs(y1 - y0) * 0.45) * (above ? -1 : 1);
    return [x0, y0, x0, y0 + pull, x1, y1 - pull, x1, y1];
  }
  const height = Math.min(46, 10 + Math.abs(x1 - x0) * 0.18);
  return [x0, from.top, x0, from.top - height, x1, to.top - height, x1, to.top];
}

/**
 * Draw curves on a canvas that covers `frame`, strongest on top.
 * @param {HTMLCanvasElement} canvas
 * @param {DOMRect} frame the place on the screen that it covers
 * @param {{from: Box, to: Box, share: number, across: boolean}[]} lines `share`: 0 to 1, of the largest weight
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
  for (const { from, to, share, across } of [...lines].sort((a, b) => a.share - b.share)) {
    const [x0, y0, a, b, c, d, x1, y1] = curve(from, to, across);
    pen.globalAlpha = 0.16 + 0.72 * Math.sqrt(share);
    pen.lineWidth = 0.75 + 4.25 * share;
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.bezierCurveTo(a, b, c, d, x1, y1);
    pen.stroke();
    pen.beginPath();
    pen.arc(x1, y1, 1.5 + 1.75 * share, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.globalAlpha = 1;
}
