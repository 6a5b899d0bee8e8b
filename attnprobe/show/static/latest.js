/** Questions of which only the last one counts. */

/**
 * Each question waits a moment, so that a pointer that passes over a hundred tokens asks for one; what is answered
 * after a later question was asked is dropped.
 * @param {number} wait milliseconds
 * @param {(error: Error) => void} onError
 * @returns {{ask(question: () => Promise<any>, then: (answer: any) => void): void, drop(): void}}
 */
export function latest(wait, onError) {
  let turn = 0;
  let timer = null;
  return {
    ask(question, then) {
      turn += 1;
      const mine = turn;
      clearTimeout(timer);
      timer = setTimeout(async () => {
        try {
          const answer = await question();
          if (mine === turn) then(answer);
        } catch (error) {
          if (mine === turn) onError(error);
        }
      }, wait);
    },
    drop() {
      turn += 1;
      clearTimeout(timer);
    },
  };
}
