// Lines of Python for tests/test_explorer_python.py: reads {changes, runs, samples, heads} as JSON, the answers that Python
// gave; writes, for each of the changes to the first state, what "Copy as Python" copies.
import { readFileSync } from "node:fs";
import { python } from "../../attnprobe/show/static/python.js";
import { START, changed } from "../../attnprobe/show/static/state.js";

const { changes, runs, samples, heads } = JSON.parse(readFileSync(0, "utf8"));
const texts = [];
for (const change of changes) {
  const state = changed(START, change);
  const app = {
    state,
    runs,
    sample: samples[`${state.run}/${state.sample}`],
    place: () => ({ run: state.run, sample: state.sample, site: state.site, head: state.head }),
    headInfo: async ({ run, sample, site, head }) => heads[`${run}/${sample}/${site}/${head}`],
    source: { kind: "http", ask: async (name, { run, sample }) => ({ head: samples[`${run}/${sample}`] }) },
  };
  texts.push(await python(app));
}
console.log(JSON.stringify(texts));
