/** The table of one row or column: position, token, weight, bar. */

import { allTokens, attended, lastKept, sides } from "./attended.js";
import { bar } from "./bars.js";
import { button, copyText, h, replace } from "./dom.js";
import { latest } from "./latest.js";
import { delimited, exact, order, readable, summary } from "./ordering.js";
import { picker } from "./picker.js";
import { cut, inQuotes, textTitle } from "./shown.js";
import { positionIn } from "./windows.js";

const AT_ONCE = 200; // rows that are added by "show more"
const COLUMNS = ["position", "token", "weight"];

/**
 * The view.
 * @param {object} app
 */
export function tableView(app) {
  const choice = picker(app);
  const filter = h("input", { type: "search", name: "filter", size: 12, on: { input: () => arrange() } });
  const heads = COLUMNS.map((name) => h("th", { scope: "col" }, button(name, () => turn(name), { class: "ap-sort" })));
  const body = h("tbody", {});
  const table = h("table", { class: "ap-table" }, h("thead", {}, h("tr", {}, heads, h("th", { scope: "col", class: "ap-bars", "aria-label": "bar" }))), body);
  const count = h("span", { class: "ap-faint" });
  const more = button(`Show ${AT_ONCE} more`, () => grow(AT_ONCE));
  const note = h("p", { class: "ap-note", role: "status" });
  const foot = h("div", { class: "ap-foot" });
  const scroller = h("div", { class: "ap-table-scroll", tabIndex: 0 }, table, h("div", { class: "ap-rest" }, more, count), note);
  const element = h(
    "div",
    { class: "ap-tableview" },
    h(
      "div",
      { class: "ap-viewbar" },
      choice.element,
      h("span", { class: "ap-push" }),
      h("label", { class: "ap-label" }, h("span", { text: "only tokens with" }), filter),
      button("Copy TSV", () => copy("\t").catch(app.onError), { title: "All rows of the table, for a spreadsheet; weights are exact" }),
      button("Copy CSV", () => copy(",").catch(app.onError), { title: "All rows of the table; weights are exact" }),
    ),
    scroller,
    foot,
  );
  const questions = latest(20, refused);
  const texts = latest(120, app.onError); // sorting and filtering by text need all tokens
  let answer = null; // {weights, ranges, at, toward}
  let indices = new Int32Array(0);
  let positionOf = (index) => index;
  let found = summary([]);
  let shown = AT_ONCE;

  const now = () => sides(app.site(), app.state.toward);
  const tokensOf = (side) => app.tokens(app.state.run, app.state.sample, side.sequence);
  const descending = () => app.state.order.startsWith("-");
  const by = () => app.state.order.replace("-", "");

  function turn(name) {
    const natural = name === "weight" ? `-${name}` : name;
    const other = name === "weight" ? name : `-${name}`;
    app.set({ order: app.state.order === natural ? other : natural });
  }

  function ask() {
    const place = app.place();
    const { chosen } = now();
    const { toward } = app.state;
    if (!app.site().weights.includes(place.head)) {
      questions.drop();
      refused(new Error("no weights of this head were kept, so there is no table; choose another head, or look at its measures"));
      return;
    }
    const wanted = app.state[chosen.name];
    questions.ask(
      async () => {
        const at = wanted ?? (await lastKept(app, place, toward));
        return { ...(await attended(app, place, toward, at)), at, toward };
      },
      (arrived) => {
        answer = arrived;
        note.textContent = "";
        table.hidden = false;
        arrange();
      },
    );
  }

  function refused(error) {
    answer = null;
    note.textContent = error.message;
    table.hidden = true;
    replace(body);
    replace(foot);
    more.hidden = true;
    count.textContent = "";
  }

  /** Put the rows in order; where that takes the tokens' text, once all of it is here. */
  function arrange() {
    if (answer === null) return;
    const { others } = now();
    const wanted = filter.value;
    if (by() !== "token" && wanted === "") {
      texts.drop();
      settle(null, "");
      return;
    }
    count.textContent = "reading the tokens ...";
    texts.ask(() => allTokens(tokensOf(others)), (all) => settle(all, wanted));
  }

  function settle(all, wanted) {
    if (answer === null) return;
    positionOf = positionIn(answer.ranges);
    indices = order(answer.weights, by(), descending(), (index) => all[positionOf(index)] ?? "", wanted);
    found = summary(answer.weights, app.state.skip && answer.toward === "keys" && positionOf(0) === 0 ? 0 : -1);
    shown = AT_ONCE;
    fill();
    scroller.scrollTop = 0;
  }

  function grow(by) {
    shown += by;
    fill();
  }

  function fill() {
    const { others } = now();
    const tokens = tokensOf(others);
    const { ramp } = app.colours();
    const rows = Array.from(indices.subarray(0, shown), (index) => row(index, positionOf(index), tokens, ramp));
    replace(body, rows);
    heads.forEach((head, i) => {
      const sorted = COLUMNS[i] === by() ? (descending() ? "descending" : "ascending") : "none";
      head.setAttribute("aria-sort", sorted);
    });
    const write = (number) => number.toLocaleString("en-US");
    more.hidden = indices.length <= shown;
    const of = indices.length < answer.weights.length ? ` that match, of ${write(answer.weights.length)}` : "";
    count.textContent = indices.length ? `${write(Math.min(shown, indices.length))} of ${write(indices.length)}${of}` : `no token has ${inQuotes(filter.value)} in it`;
    tell();
  }

  function row(index, position, tokens, ramp) {
    const weight = answer.weights[index];
    const token = tokens.at(position);
    return h(
      "tr",
      { class: position === answer.at && sameSequence() ? "ap-current-row" : null },
      h("td", { class: "ap-number", text: position.toLocaleString("en-US") }),
      h("td", { class: "ap-word", title: textTitle(token, tokens.textAt(position)) }, h("bdi", { text: cut(token, 60) })),
      h("td", { class: "ap-number", text: readable(weight), title: exact(weight) }),
      h("td", { class: "ap-bars" }, bar(weight, found.most, ramp)),
    );
  }

  const sameSequence = () => app.site().queries === app.site().keys;

  function tell() {
    const { chosen } = now();
    const token = tokensOf(chosen).at(answer.at);
    const parts = [
      ["of", `${chosen.name} ${answer.at.toLocaleString("en-US")} ${inQuotes(token)}`],
      ["sum", found.sum.toFixed(6)],
      ...(answer.toward === "keys" ? [["entropy", `${found.entropy.toFixed(4)} nats (as even as over ${Math.exp(found.entropy).toFixed(1)} keys)`]] : []),
      ["above zero", `${found.positive.toLocaleString("en-US")} of ${found.count.toLocaleString("en-US")}`],
      ...(found.unknown > 0 ? [["not a number", found.unknown.toLocaleString("en-US")]] : []),
    ];
    replace(foot, parts.map(([name, text]) => h("span", {}, h("span", { class: "ap-faint", text: `${name} ` }), h("bdi", { text }))));
  }

  /** All rows of the table in its order, with exact weights. */
  async function copy(separator) {
    if (answer === null) throw new Error("there is no table to copy");
    const all = await allTokens(tokensOf(now().others));
    const rows = Array.from(indices, (index) => [positionOf(index), all[positionOf(index)] ?? "", exact(answer.weights[index])]);
    const text = delimited([COLUMNS, ...rows], separator);
    if (await copyText(text, element)) app.say(`${rows.length.toLocaleString("en-US")} rows are in the clipboard`);
    else offer(text);
  }

  /** Where nothing may be put into the clipboard: the text, chosen, to be copied by hand. */
  function offer(text) {
    const area = h("textarea", { class: "ap-area", rows: 8, "aria-label": "the table", value: text });
    const box = h("div", { class: "ap-offer" }, "The clipboard is not to be had here; press Ctrl+C or ⌘C.", area, button("close", () => box.remove()));
    element.append(box);
    area.focus();
    area.select();
  }

  const WEIGHTS = ["run", "sample", "site", "head", "query", "key", "toward", "data", "shown"];

  function update(changed) {
    const any = (names) => names.some((name) => changed.has(name));
    if (app.site() === null) {
      refused(new Error("nothing was kept of this sample"));
      return;
    }
    choice.update();
    if (any(["run", "sample", "site", "head", "toward"])) answer = null;
    if (any(WEIGHTS)) ask();
    else if (answer !== null && any(["order", "skip"])) arrange();
    else if (answer !== null && any(["tokens", "colours"])) fill();
  }

  return { element, show() {}, hide: () => questions.drop(), focus: () => scroller.focus({ preventScroll: true }), update };
}
