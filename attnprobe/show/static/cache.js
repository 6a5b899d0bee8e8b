// Patches that were asked for: a few at a time, the wanted ones first, the least lately used forgotten when memory is full.
import { keyOf } from "./patches.js";

/** Milliseconds after which a patch that failed may be tried again. */
export const RETRY = 3000;

/** @typedef {{key: string, cells: ?Uint16Array, extra: *, bytes: number, picture: *, version: number}} Entry */

/** Patches of maps. */
export class PatchCache {
  /**
   * @param {object} options
   * @param {function(object, AbortSignal): Promise<{cells: Uint16Array}>} options.load gets a patch
   * @param {function(Entry, object): (boolean|void)} options.paint colours one that is there, into `entry.picture`; false: not yet
   * @param {function(): void} options.changed called when a patch came or failed
   * @param {function(Error): void} options.failed
   * @param {number} options.bytes that patches and their pictures may take; what is wanted now is kept beyond it
   * @param {number} options.atOnce requests at a time
   * @param {function(): number} options.now milliseconds
   */
  constructor({ load, paint, changed, failed, bytes = 192 << 20, atOnce = 6, now = () => performance.now() }) {
    Object.assign(this, { load, paint, changed, failed, limit: bytes, atOnce, now });
    this.entries = new Map(); // least lately used first
    this.flights = new Map();
    this.queue = [];
    this.broken = new Map(); // key -> when it may be tried again
    this.bytes = 0;
    this.loaded = 0;
  }

  /**
   * The entry of a patch if it is there.
   * @returns {?Entry}
   */
  get(patch) {
    return this.entries.get(keyOf(patch)) ?? null;
  }

  /** The same, used now, and coloured as of a version of the colours; null also if it cannot be coloured yet. */
  picture(patch, version) {
    const key = keyOf(patch);
    const entry = this.entries.get(key);
    if (!entry) return null;
    this.entries.delete(key);
    this.entries.set(key, entry);
    if (entry.version !== version && this.paint(entry, patch) !== false) entry.version = version;
    return entry.picture ? entry : null;
  }

  /**
   * What is wanted now, most of all first. What was wanted before and is not in the list is dropped, also if it is on its way.
   * @param {object[]} patches
   */
  want(patches) {
    const wanted = new Map(patches.map((patch) => [keyOf(patch), patch]));
    this.queue = [...wanted].filter(([key]) => !this.entries.has(key) && !this.flights.has(key)).map(([, patch]) => patch);
    this.wanted = new Set(wanted.keys());
    for (const [key, flight] of this.flights) {
      if (!wanted.has(key)) {
        this.flights.delete(key);
        flight.abort();
      }
    }
    this.start();
  }

  /** Whether something that is wanted is still to come. */
  get busy() {
    return this.flights.size > 0 || this.queue.some((patch) => this.may(keyOf(patch)));
  }

  /** Forget all, and stop what is on its way. */
  clear() {
    this.want([]);
    this.entries.clear();
    this.broken.clear();
    this.bytes = 0;
  }

  may(key) {
    return !(this.broken.get(key) > this.now());
  }

  start() {
    while (this.flights.size < this.atOnce && this.queue.length) {
      const patch = this.queue.shift();
      if (this.may(keyOf(patch))) this.fly(patch);
    }
  }

  async fly(patch) {
    const key = keyOf(patch);
    const flight = new AbortController();
    this.flights.set(key, flight);
    try {
      const got = await this.load(patch, flight.signal);
      if (this.flights.get(key) === flight) this.keep(key, got);
    } catch (error) {
      if (this.flights.get(key) !== flight) return; // it was dropped
      this.broken.set(key, this.now() + RETRY);
      this.failed(error);
    }
    if (this.flights.get(key) !== flight) return;
    this.flights.delete(key);
    this.start();
    this.changed();
  }

  keep(key, got) {
    const bytes = 6 * got.cells.length; // two for its bits, four for its colour
    this.entries.set(key, { ...got, key, bytes, picture: null, version: -1 });
    this.bytes += bytes;
    this.loaded++;
    for (const [old, entry] of this.entries) {
      if (this.bytes <= this.limit) break;
      if (this.wanted.has(old)) continue;
      this.entries.delete(old);
      this.bytes -= entry.bytes;
    }
  }
}
