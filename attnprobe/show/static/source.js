/** Where answers come from: a server, a notebook's kernel, or the HTML file itself. All give `{head, values}`. */

const ARRAYS = { bfloat16: Uint16Array, uint16: Uint16Array, float32: Float32Array, int32: Int32Array };

/** An answer's two parts, of its bytes. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (head.error) throw new Error(head.error);
  const kind = ARRAYS[head.dtype];
  return { head, values: kind ? new kind(buffer.slice(4 + length)) : null };
}

/** A question as text, which names it: parameters in order of their names. */
export function written(name, params = {}) {
  const parts = Object.keys(params)
    .sort()
    .map((key) => `${encodeURIComponent(key)}=${encodeURIComponent(params[key])}`);
  return `${name}?${parts.join("&")}`;
}

/** Asks a server, under the address of the page, with the key of the link that opened it. */
export function httpSource(base = "ask/", key = "") {
  return {
    kind: "http",
    async ask(name, params = {}, { signal } = {}) {
      let answer;
      try {
        answer = await fetch(base + written(name, params), { signal, headers: { Authorization: `Bearer ${key}` } });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Error("the server does not answer; is `attnprobe view` still running?", { cause: error });
      }
      if (answer.status === 401) throw new Error("this link's key is no longer valid; open the one that `attnprobe view` printed");
      if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
      return unpack(await answer.arrayBuffer());
    },
  };
}

/** Asks the kernel, over the widget's own channel. */
export function commSource(model) {
  const waiting = new Map();
  let last = 0;
  const hear = (message, buffers) => {
    const wait = waiting.get(message?.id);
    if (!wait) return;
    waiting.delete(message.id);
    const view = buffers[0]; // a DataView on bytes that other messages may share
    wait(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  model.on("msg:custom", hear);
  return {
    kind: "comm",
    /** Hear no more: the model outlives its views, of which a notebook makes a new one each time a cell is shown. */
    close: () => model.off("msg:custom", hear),
    ask(name, params = {}, { signal } = {}) {
      return new Promise((resolve, reject) => {
        const id = `${Date.now()}-${++last}-${Math.random()}`; // several views may share one model
        const forget = () => {
          waiting.delete(id);
          reject(signal.reason ?? new DOMException("no longer wanted", "AbortError"));
        };
        if (signal?.aborted) return forget();
        signal?.addEventListener("abort", forget, { once: true });
        waiting.set(id, (bytes) => {
          signal?.removeEventListener("abort", forget);
          try {
            resolve(unpack(bytes));
          } catch (error) {
            reject(error);
          }
        });
        model.send({ id, name, params });
      });
    },
  };
}

/** Answers that an HTML file holds: deflated frames in base64, by `written`. */
export function fileSource(answers) {
  return {
    kind: "file",
    async ask(name, params = {}) {
      const key = written(name, params);
      if (!Object.hasOwn(answers, key)) throw new Error("this file does not hold that; open the run itself, or export more of it");
      const bytes = Uint8Array.from(atob(answers[key]), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      return unpack(await new Response(stream).arrayBuffer());
    },
    has: (name, params = {}) => Object.hasOwn(answers, written(name, params)),
  };
}
