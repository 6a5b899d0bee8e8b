/** The views, in the order of their tabs. A view is one function; a new one is one line here. */

import { compareView } from "./compare.js";
import { linesView } from "./lines.js";
import { mapWithBox } from "./mapbox.js";
import { measuresView } from "./measures.js";
import { overviewView } from "./overview.js";
import { tableView } from "./table.js";

export const VIEW_LIST = [
  { name: "heads", title: "Heads", make: overviewView },
  { name: "map", title: "Map", make: mapWithBox },
  { name: "lines", title: "Lines", make: linesView },
  { name: "table", title: "Table", make: tableView },
  { name: "measures", title: "Measures", make: measuresView },
  { name: "compare", title: "Compare", make: compareView },
];
