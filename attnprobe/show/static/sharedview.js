/**
 * What part of a map is looked at, and where the crosshair is, for all maps of an app: they move together at once, and the
 * state is told when the hand rests. A browser lets a page write its address only so often.
 */

const REST = 150; // milliseconds

const views = new WeakMap();

/** The one of an app. */
export function sharedView(app) {
  if (!views.has(app)) views.set(app, new SharedView(app));
  return views.get(app);
}

const partOf = ({ row, column, span }) => ({ row, column, span });

/** `part` is {row, column, span} as in the state, `cross` {query, key} or null. */
export class SharedView {
  constructor(app) {
    this.app = app;
    this.part = partOf(app.state);
    this.cross = null;
    this.followers = new Set();
    this.timer = null;
  }

  /** Look at another part. */
  move(part) {
    this.part = part;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settle(), REST);
    this.tell();
  }

  /** Move the crosshair. */
  point(cross) {
    if (this.cross?.query === cross?.query && this.cross?.key === cross?.key) return;
    this.cross = cross;
    this.tell();
  }

  /** Whether the state is still to be told. */
  get busy() {
    return this.timer !== null;
  }

  /** Tell the state now. */
  settle() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.app.set(this.part);
  }

  /** The state changed: by a link, another view, a notebook. What is not yet told is newer. */
  adopt() {
    if (this.timer === null) this.part = partOf(this.app.state);
  }

  tell() {
    for (const follow of this.followers) follow();
  }
}
