import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { commSource, fileSource, httpSource, unpack, written } from "../../attnprobe/show/static/source.js";

/** A frame, by hand. */
function frame(head, bytes = Buffer.alloc(0)) {
  let text = Buffer.from(JSON.stringify(head));
  text = Buffer.concat([text, Buffer.alloc((12 - ((text.length + 4) % 8)) % 8, " ")]);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  return Buffer.concat([size, text, bytes]);
}

const exact = (buffer) => buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
const NUMBERS = Buffer.from(Float32Array.of(0.25, Number.NaN, 1e-30).buffer);

test("an answer is its head and its numbers", () => {
  const { head, values } = unpack(exact(frame({ dtype: "float32", token: "Ġé</script>" }, NUMBERS)));
  assert.equal(head.token, "Ġé</script>");
  assert.deepEqual([...values], [0.25, Number.NaN, Math.fround(1e-30)]);
});

test("an answer without numbers has none", () => assert.equal(unpack(exact(frame({ a: 1 }))).values, null));

test("a refusal is an error with its sentence", () => {
  assert.throws(() => unpack(exact(frame({ error: "there is no head 99; there are 0 to 7" }))), /no head 99/);
});

test("a question is written in one way, whatever the order of its parameters", () => {
  assert.equal(written("row", { site: "a&b=c", head: 1 }), written("row", { head: 1, site: "a&b=c" }));
  assert.equal(written("row", { site: "a&b=c", head: 1 }), "row?head=1&site=a%26b%3Dc");
});

test("a file answers what it holds, and says what it does not", async () => {
  const answers = { [written("row", { head: 1 })]: deflateSync(frame({ dtype: "float32", start: 2 }, NUMBERS)).toString("base64") };
  const source = fileSource(answers);
  const { head, values } = await source.ask("row", { head: 1 });
  assert.equal(head.start, 2);
  assert.equal(values[0], 0.25);
  await assert.rejects(source.ask("row", { head: 2 }), /does not hold/);
  await assert.rejects(source.ask("constructor"), /does not hold/);
});

/** A widget's model whose kernel answers by hand. */
function kernel() {
  const sent = [];
  let listener = null;
  return {
    sent,
    model: { on: (_, call) => (listener = call), send: (message) => sent.push(message) },
    answer: (id, bytes) => {
      const shared = Buffer.concat([Buffer.alloc(5), bytes]); // a view that does not start where its buffer does
      listener({ id }, [new DataView(exact(shared), 5)]);
    },
  };
}

test("a kernel's answers find their questions in any order", async () => {
  const { model, sent, answer } = kernel();
  const source = commSource(model);
  const first = source.ask("row", { query: 1 });
  const second = source.ask("row", { query: 2 });
  answer(sent[1].id, frame({ query: 2 }));
  answer("somebody else's", frame({}));
  answer(sent[0].id, frame({ query: 1 }));
  assert.equal((await first).head.query, 1);
  assert.equal((await second).head.query, 2);
});

test("a question that is no longer wanted ends, and its late answer is nobody's", async () => {
  const { model, sent, answer } = kernel();
  const stop = new AbortController();
  const asked = commSource(model).ask("row", {}, { signal: stop.signal });
  stop.abort();
  await assert.rejects(asked, { name: "AbortError" });
  answer(sent[0].id, frame({}));
});

test("a server's answers, refusals and absence", async () => {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.url, request.headers.authorization);
    if (request.url.startsWith("/ask/secret")) response.writeHead(401).end();
    else if (request.url.startsWith("/ask/gone")) response.writeHead(404).end();
    else response.end(frame({ dtype: "float32" }, NUMBERS));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const source = httpSource(`http://127.0.0.1:${server.address().port}/ask/`, "key_of-the.link");
  const { values } = await source.ask("row", { site: "a b", query: 1 });
  assert.equal(values[0], 0.25);
  assert.deepEqual(seen, ["/ask/row?query=1&site=a%20b", "Bearer key_of-the.link"]);
  await assert.rejects(source.ask("secret"), /no longer valid/);
  await assert.rejects(source.ask("gone"), /answered 404/);
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(source.ask("row"), /still running/);
});

test("a source that is closed hears its model no more", () => {
  const heard = new Set();
  const model = { on: (name, call) => heard.add(`${name} ${call.name}`), off: (name, call) => heard.delete(`${name} ${call.name}`), send() {} };
  const source = commSource(model);
  assert.equal(heard.size, 1);
  source.close();
  assert.equal(heard.size, 0);
});
