/** Asks about a run again and again while it is being written. */

const POLL = 2000; // milliseconds between two questions
const PATIENCE = 10_000; // and after one that failed

/**
 * `ask(run)` gives a promise of whether more may come; `failed(error)` is told why there is none; `alive()` says whether
 * anybody still looks. `later` and `never` are a clock's.
 * @returns {{start(run: number): void, stop(): void}} `start` watches a run, and no other any more
 */
export function createWatch({ ask, failed, alive, later = setTimeout, never = clearTimeout }) {
  let turn = 0;
  let timer = null;

  function stop() {
    turn += 1;
    never(timer);
  }

  function start(run) {
    stop();
    const mine = turn;
    let writing = false;
    const look = async () => {
      let wait = POLL;
      try {
        writing = await ask(run);
      } catch (error) {
        failed(error);
        wait = PATIENCE;
      }
      if (writing && mine === turn && alive()) timer = later(look, wait);
    };
    look();
  }

  return { start, stop };
}
