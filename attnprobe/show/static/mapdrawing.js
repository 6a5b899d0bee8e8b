/** Both canvases of a map: the picture, and what is written over and beside it. */

import { drawCells } from "./celltext.js";
import { drawBox, drawCell, drawLines } from "./marks.js";
import { drawMinimap, minimapOf } from "./minimap.js";
import { drawProfiles } from "./profiles.js";
import { drawRulers } from "./rulers.js";
import { frameOf } from "./viewport.js";

const MARGIN = { left: 92, top: 82, right: 48, bottom: 48 }; // pixels of CSS: tokens; profiles
const NARROW = { left: 56, top: 56, right: 6, bottom: 6 };
const OVER = 3; // pixels by which the last cell may reach beyond the area

/** `area` is where the map is drawn, `origin` its corner in the canvas. */
export function mapDrawing(picture, ink) {
  const drawing = { area: { width: 0, height: 0 }, origin: { x: 0, y: 0 }, ratio: 1, resize, draw };
  const paper = picture.getContext("2d", { alpha: false });
  const pen = ink.getContext("2d");
  let profiles = true;

  function resize(stage, ratio) {
    const { clientWidth: width, clientHeight: height } = stage;
    for (const canvas of [picture, ink]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    profiles = width >= 480 && height >= 360;
    const margin = profiles ? MARGIN : NARROW;
    drawing.ratio = ratio;
    drawing.origin = { x: margin.left, y: margin.top };
    drawing.area = { width: Math.max(width - margin.left - margin.right, 0), height: Math.max(height - margin.top - margin.bottom, 0) };
  }

  /** Draw all; gives what the picture's drawing gives. */
  function draw(pictures, { view, shape, tokens, cross, box, state, signed, colours, weightAt }) {
    const { area, origin, ratio } = drawing;
    paper.setTransform(1, 0, 0, 1, 0, 0);
    paper.fillStyle = colours.background;
    paper.fillRect(0, 0, picture.width, picture.height);
    paper.save();
    paper.beginPath();
    paper.rect(...[origin.x, origin.y, area.width + OVER, area.height + OVER].map((length) => Math.round(length * ratio)));
    paper.clip();
    const drawn = pictures.draw(paper, view, area, origin, ratio);
    paper.restore();

    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, ink.width, ink.height);
    const at = { view, area, origin, shape, colours, frame: frameOf(view, area, shape, origin) };
    pen.save();
    pen.beginPath();
    pen.rect(origin.x, origin.y, area.width, area.height);
    pen.clip();
    if (weightAt) drawCells(pen, weightAt, pictures.wordOf, at);
    drawLines(pen, state, colours.accent, at);
    if (cross) {
      drawLines(pen, cross, colours.ink, at, true);
      drawCell(pen, cross, drawn.level ?? 0, colours.ink, at);
    }
    if (box) drawBox(pen, box, colours.accent, at);
    pen.restore();
    const small = minimapOf(view, area, shape, origin);
    if (small) drawMinimap(pen, small, pictures.whole, at);
    drawRulers(pen, { ...at, tokens, cross, chosen: state });
    if (cross && profiles && drawn.level !== null) {
      const { of } = pictures.subject;
      const find = (patch) => pictures.cache.get({ ...patch, of });
      const room = MARGIN.right - 10;
      drawProfiles(pen, cross, find, { ...at, level: drawn.level, room, limits: colours.limits, scale: state.scale, signed, skip: state.skip });
    }
    return drawn;
  }

  return drawing;
}
