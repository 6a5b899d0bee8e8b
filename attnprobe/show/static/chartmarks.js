/** What a chart draws within its axes: curves with bands, bars, points with names. Scales are those of `scaleOf`. */

/** A curve, and the band of what its stretches cover. */
export function drawLine(context, one, x, y) {
  const count = one.at.length;
  if (one.band) {
    context.globalAlpha = 0.22;
    context.fillStyle = one.colour;
    for (let i = 0; i < count; i++) {
      if (!Number.isFinite(one.low[i])) continue;
      const wide = count > 1 ? Math.abs(x.at(one.at[1]) - x.at(one.at[0])) : 2;
      const [top, bottom] = [y.at(one.high[i]), y.at(one.low[i])];
      context.fillRect(x.at(one.at[i]) - wide / 2, top, wide, Math.max(1, bottom - top));
    }
  }
  context.globalAlpha = one.alpha ?? 1;
  context.strokeStyle = one.colour;
  context.lineWidth = one.width ?? 1.5;
  context.lineJoin = "round";
  context.beginPath();
  let pen = false;
  for (let i = 0; i < count; i++) {
    const there = Number.isFinite(one.mean[i]);
    if (there && pen) context.lineTo(x.at(one.at[i]), y.at(one.mean[i]));
    else if (there) context.moveTo(x.at(one.at[i]), y.at(one.mean[i]));
    pen = there;
  }
  context.stroke();
  context.globalAlpha = 1;
}

/** Bars beside each other, over an axis of names. */
export function drawBars(context, bars, x, y) {
  const wide = Math.max(1, Math.min(28, (x.each * 0.8) / Math.max(1, bars.length)));
  bars.forEach(({ values, colour }, number) => {
    context.fillStyle = colour;
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      const left = x.at(i) + (number - bars.length / 2) * wide;
      const [top, bottom] = [y.at(value), y.at(0)];
      context.fillRect(left, Math.min(top, bottom), Math.max(1, wide - 1), Math.abs(bottom - top));
    });
  });
}

/** Dashed lines at places of one axis or the other, those that are on the paper. */
export function drawGuides(context, guides, x, y, box, axes, colours) {
  context.strokeStyle = colours.faint;
  context.lineWidth = 1;
  context.setLineDash([4, 4]);
  for (const guide of guides) {
    const [axis, value] = guide.x === undefined ? [axes.y, guide.y] : [axes.x, guide.x];
    if (!(value >= axis.low && value <= axis.high)) continue;
    context.beginPath();
    context.moveTo(guide.x === undefined ? box.left : x.at(value), guide.x === undefined ? y.at(value) : box.top);
    context.lineTo(guide.x === undefined ? box.right : x.at(value), guide.x === undefined ? y.at(value) : box.bottom);
    context.stroke();
  }
  context.setLineDash([]);
}

/** One point; with an edge where it is chosen or pointed at. */
export function drawPoint(context, { colour }, { x, y }, radius, edge) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.globalAlpha = edge ? 1 : 0.75;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
  if (!edge) return;
  context.lineWidth = 2;
  context.strokeStyle = edge;
  context.stroke();
}

/** Points at their places, and the names of those that have one, where there is room. */
export function drawPoints(context, points, places, box, colours) {
  points.forEach((one, i) => drawPoint(context, one, places[i], one.strong ? 6 : 4, one.strong ? colours.ink : null));
  context.font = colours.font;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillStyle = colours.ink;
  const taken = [];
  const named = points.map((one, i) => [one, places[i]]).filter(([one]) => one.label !== undefined);
  for (const [{ label }, { x, y }] of named.sort(([one], [other]) => one.rank - other.rank)) {
    const wide = context.measureText(label).width;
    // to the right, to the left, above, below: where it is on the paper and lies on no other
    const tries = [[x + 9, y], [x - 9 - wide, y], [x - wide / 2, y - 14], [x + 4, y - 14], [x - 4 - wide, y - 14], [x - wide / 2, y + 14]];
    const boxes = tries.map(([left, middle]) => ({ left: left - 2, right: left + wide + 2, top: middle - 7, bottom: middle + 7 }));
    const inside = (one) => one.left > box.left && one.right < box.right + 8 && one.top > box.top - 8 && one.bottom < box.bottom;
    const mine = boxes.find((one) => inside(one) && !taken.some((other) => touch(one, other)));
    if (!mine) continue;
    taken.push(mine);
    context.fillText(label, mine.left + 2, (mine.top + mine.bottom) / 2);
  }
}

function touch(one, other) {
  return one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top;
}
