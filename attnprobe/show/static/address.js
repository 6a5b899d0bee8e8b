/** The page's address, which holds the state: a link opens what is shown, and "back" leads to the view before. */

import { debounce } from "./dom.js";
import { fromHash, toHash } from "./state.js";

const LATER = 150; // milliseconds: browsers limit how often a page may write its address

/** Keeps the address up to date with `current()`, the state. */
export function createAddress(current) {
  let due = null; // an address that is not written yet

  function write() {
    if (due !== null) history.replaceState(null, "", due);
    due = null;
  }

  const writeLater = debounce(LATER, write);
  const address = () => toHash(current()) || location.pathname + location.search;

  return {
    /** Write what has changed; a view that is left stays in the browser's history. */
    remember(names) {
      if (names.has("view") && fromHash(location.hash).view !== current().view) {
        write();
        history.pushState(null, "", address());
      } else {
        due = address();
        writeLater();
      }
    },
    /** The whole address of what is shown. */
    link: () => location.href.replace(/#.*$/, "") + toHash(current()),
  };
}
