/** Where each head stands in the overview: groups, layers by heads, or by rank. Pure: sizes in, places out. */

export const GAP = 4;
export const GUTTER = 44; // left of the rows, for layer numbers
export const HEADER = 20; // above the columns, for head numbers
const HEADING = 30; // above a group
const [SMALLEST, ENOUGH, COMFORTABLE, LARGEST] = [24, 38, 44, 120]; // sides of cells; ENOUGH if then everything is seen at once
const STRIP = 8; // below a picture, for the colour and length of a measure
const CAPTION = 28; // below a picture by rank: name and number

/** Sites that are alike, in the order of the model: one attention of one part of it. */
export function groupsOf(sites) {
  const found = new Map();
  for (const site of sites) {
    if (!site.heads.length) continue;
    const key = `${site.part}/${site.kind}`;
    if (!found.has(key)) found.set(key, { part: site.part, kind: site.kind, sites: [] });
    found.get(key).sites.push(site);
  }
  const groups = [...found.values()];
  const parts = new Set(groups.map((group) => group.part)).size;
  for (const group of groups) {
    group.sites.sort((one, other) => one.layer - other.layer);
    const heads = group.sites.reduce((sum, site) => sum + site.heads.length, 0);
    const name = `${group.kind}-attention`;
    group.tag = groups.length === 1 ? "" : group.kind === "cross" ? "x " : parts > 1 ? `${group.part.slice(0, 3)} ` : "";
    group.title = parts > 1 ? `${capital(group.part)}, ${name}` : capital(name);
    group.note = `${counted(group.sites.length, "layer")}, ${counted(heads, "head")}`;
  }
  return groups;
}

/** Every head of some groups, in reading order; `label` tells those of one layer and number apart ("x L3H5"). */
export function headsOf(groups) {
  return groups.flatMap((group) =>
    group.sites.flatMap((site) => {
      const drawn = new Set(site.weights);
      return [...site.heads]
        .sort((one, other) => one - other)
        .map((head) => {
          const name = `L${site.layer}H${head}`;
          return { site: site.key, layer: site.layer, head, name, label: group.tag + name, group, weights: drawn.has(head) };
        });
    }),
  );
}

/**
 * Heads by a number, the largest first (or the smallest), those without one last; equals stay in the order they came in.
 */
export function ranked(heads, valueOf, smallestFirst = false) {
  const values = new Map(heads.map((head) => [head, valueOf(head)]));
  const known = (head) => Number.isFinite(values.get(head));
  return [...heads].sort((one, other) => {
    if (known(one) !== known(other)) return known(one) ? -1 : 1;
    if (!known(one)) return 0;
    return smallestFirst ? values.get(one) - values.get(other) : values.get(other) - values.get(one);
  });
}

/**
 * Layers downwards, heads to the right; columns are the head numbers that were kept at all.
 *
 * Everything in one picture where cells stay comfortable; else as wide as there is room, and it scrolls downwards.
 * Gives `{size, strip, caption, width, height, columns, headings, rows, cells}`; a cell is `{x, y, row, column, item}`.
 */
export function byPlace(groups, width, height, strip = false) {
  const heads = headsOf(groups);
  const columns = [...new Set(heads.map((one) => one.head))].sort((one, other) => one - other);
  const below = strip ? STRIP : 0;
  const several = groups.length > 1;
  const lines = groups.reduce((sum, group) => sum + group.sites.length, 0);
  const across = (width - GUTTER) / Math.max(1, columns.length) - GAP;
  const down = (height - HEADER - (several ? HEADING * groups.length : 0)) / Math.max(1, lines) - GAP - below;
  const size = fitted(across, down);
  const columnOf = new Map(columns.map((head, column) => [head, column]));
  const [headings, rows, cells] = [[], [], []];
  let y = HEADER;
  for (const group of groups) {
    if (several) {
      headings.push({ y, text: group.title, note: group.note });
      y += HEADING;
    }
    for (const site of group.sites) {
      const row = rows.push({ y, site: site.key, label: `L${site.layer}` }) - 1;
      for (const item of heads.filter((one) => one.site === site.key)) {
        const column = columnOf.get(item.head);
        cells.push({ x: GUTTER + column * (size + GAP), y, row, column, item });
      }
      y += size + below + GAP;
    }
  }
  const wide = GUTTER + columns.length * (size + GAP);
  const ticks = columns.map((head, column) => ({ x: GUTTER + column * (size + GAP), text: String(head) }));
  return { size, strip: below, caption: 0, width: wide, height: y, columns: ticks, headings, rows, cells };
}

/** In reading order, each with its name and number below. */
export function byRank(heads, width, height, strip = false) {
  const below = (strip ? STRIP : 0) + CAPTION;
  const room = Math.max(COMFORTABLE + GAP, width - GAP);
  let size = COMFORTABLE;
  for (let larger = LARGEST; larger >= ENOUGH + 2; larger -= 2) {
    const across = Math.floor(room / (larger + GAP));
    if (across && Math.ceil(heads.length / across) * (larger + below + GAP) + GAP <= height) {
      size = larger;
      break;
    }
  }
  const across = Math.max(1, Math.floor(room / (size + GAP)));
  const pitch = size + below + GAP;
  const cells = heads.map((item, i) => {
    const [row, column] = [Math.floor(i / across), i % across];
    return { x: GAP + column * (size + GAP), y: GAP + row * pitch, row, column, item };
  });
  const wide = GAP + Math.min(across, heads.length) * (size + GAP);
  const high = GAP + Math.ceil(heads.length / across) * pitch;
  const strips = strip ? STRIP : 0;
  return { size, strip: strips, caption: CAPTION, width: wide, height: high, columns: [], headings: [], rows: [], cells };
}

/** The number of the cell at a point, its strip and caption included; -1 where there is none. */
export function hit(layout, x, y) {
  const high = layout.size + layout.strip + layout.caption;
  return layout.cells.findIndex((one) => x >= one.x && x < one.x + layout.size && y >= one.y && y < one.y + high);
}

/** The numbers of the cells that a rectangle touches. */
export function visible(layout, left, top, right, bottom) {
  const high = layout.size + layout.strip + layout.caption;
  const found = [];
  layout.cells.forEach((one, i) => {
    if (one.x < right && one.x + layout.size > left && one.y < bottom && one.y + high > top) found.push(i);
  });
  return found;
}

/**
 * Where a key leads from a cell: along its row, to the nearest cell of another row, to the ends of the row, or (with
 * Control) of everything. -1 for a key that leads nowhere; at an edge, the cell itself.
 */
export function moved(layout, from, key, control = false) {
  const { cells } = layout;
  if (!cells.length) return -1;
  const here = cells[Math.max(0, from)];
  const row = (number) => cells.flatMap((one, i) => (one.row === number ? [i] : []));
  const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -5, PageDown: 5 }[key];
  if (key === "Home") return control ? 0 : row(here.row)[0];
  if (key === "End") return control ? cells.length - 1 : row(here.row).at(-1);
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const line = row(here.row);
    return line[Math.max(0, Math.min(line.length - 1, line.indexOf(Math.max(0, from)) + (key === "ArrowLeft" ? -1 : 1)))];
  }
  if (step === undefined) return -1;
  const numbers = [...new Set(cells.map((one) => one.row))];
  const at = Math.max(0, Math.min(numbers.length - 1, numbers.indexOf(here.row) + step));
  const away = (i) => Math.abs(cells[i].column - here.column);
  return row(numbers[at]).reduce((best, i) => (away(i) < away(best) ? i : best));
}

function fitted(across, down) {
  const fit = Math.floor(Math.min(across, down));
  const roomy = fit >= ENOUGH ? fit : Math.max(fit, Math.min(COMFORTABLE, Math.floor(across)));
  return Math.max(SMALLEST, Math.min(LARGEST, roomy));
}

function counted(count, what) {
  return `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
