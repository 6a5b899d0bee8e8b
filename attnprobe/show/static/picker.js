/** Chooses a token: which way to look, and a position or a token that is typed. Shared by the lines and the table. */

import { allPieces, allTokens, lastKept, sides } from "./attended.js";
import { button, h, replace } from "./dom.js";
import { meant } from "./ordering.js";
import { nearTo, placesOf } from "./searching.js";
import { asText, called, cut, inQuotes, textTitle } from "./shown.js";

const LISTED = 40; // places of a token that are offered
const AROUND = 4; // tokens of context on each side

/**
 * Build one.
 * @param {object} app
 * @param {(name: string, position: number) => void} take called with "query" or "key" and what is chosen of it
 * @param {() => void} learned called when `at` is another because more is known of the head
 * @returns {{element: HTMLElement, update(): void, step(by: number): void, at(): number}}
 */
export function picker(app, take = (name, position) => app.set({ [name]: position }), learned = () => {}) {
  const ways = [
    ["keys", "what it attends to", "Weights of one query over all keys: a row of the map"],
    ["queries", "what attends to it", "Weights of all queries on one key: a column of the map"],
  ].map(([value, text, title]) => button(text, () => turn(value), { class: "ap-way", title, "data-value": value }));
  const input = h("input", {
    type: "text",
    name: "token",
    size: 14,
    autocomplete: "off",
    spellcheck: "false",
    on: {
      change: () => find().catch(app.onError),
      keydown: (event) => {
        if (event.key === "Escape") replace(list);
      },
    },
  });
  const label = h("span", {});
  const text = h("bdi", { class: "ap-chosen" });
  const earlier = button("‹", () => step(-1), { title: "The token before" });
  const later = button("›", () => step(1), { title: "The token after" });
  const list = h("div", { class: "ap-places", role: "group", "aria-label": "places of the token" });
  const element = h(
    "div",
    { class: "ap-picker" },
    h("div", { class: "ap-ways", role: "group", "aria-label": "direction" }, ways),
    h("label", { class: "ap-label", title: "A position, a token, or words of the text" }, label, input),
    earlier,
    later,
    text,
    list,
  );

  let known = null; // what was chosen when this was last updated
  let offered = ""; // the sequence whose places are offered

  let usual = { of: "", at: 0 }; // what is looked at before anything is chosen, and of which head

  const now = () => sides(app.site(), app.state.toward);

  /** The token that is looked at: the chosen one, else the last that was kept. */
  function at() {
    const { chosen } = now();
    return app.state[chosen.name] ?? Math.min(usualAt(), chosen.length - 1);
  }

  function usualAt() {
    const { toward } = app.state;
    const place = app.place();
    const of = JSON.stringify([place, toward]);
    if (usual.of !== of) {
      const mine = (usual = { of, at: now().chosen.length - 1 });
      const take = (last) => {
        if (usual !== mine || last === mine.at) return;
        mine.at = last;
        update();
        learned();
      };
      lastKept(app, place, toward).then(take, app.onError);
    }
    return usual.at;
  }

  /** Look the other way, at the same token where both are of one sequence. */
  function turn(toward) {
    const { state } = app;
    const site = app.site();
    if (toward === state.toward) return;
    const changes = { toward };
    if (site.queries === site.keys) {
      if (toward === "queries") Object.assign(changes, { key: state.query, column: state.row });
      else Object.assign(changes, { query: state.key, row: state.column });
    }
    app.set(changes);
  }

  function step(by) {
    const { chosen } = now();
    const to = at() + by;
    if (to >= 0 && to < chosen.length) take(chosen.name, to);
  }

  async function find() {
    const { chosen } = now();
    const { run, sample } = app.state;
    const typed = input.value;
    replace(list);
    const source = app.tokens(run, sample, chosen.sequence);
    const tokens = await allTokens(source);
    if (input.value !== typed) return;
    const { positions, how } = meant(typed, tokens);
    if (how === "position" || typed.trim() === "") {
      if (positions.length) take(chosen.name, positions[0]);
      return;
    }
    const pieces = await allPieces(source);
    if (input.value !== typed) return;
    const words = how === "token" ? [] : placesOf(typed, pieces); // what is a token is meant as one
    const places = words.length ? words : positions.map((at) => ({ from: at, at }));
    const count = places.length.toLocaleString("en-US");
    if (places.length === 1) {
      app.say("");
      take(chosen.name, places[0].at);
    } else if (places.length > 1) {
      app.say(`${inQuotes(typed.trim())}: ${count} places; choose one`);
      offer(places, pieces, chosen);
    } else {
      const near = nearTo(typed, pieces).map(inQuotes).join(", ");
      app.say(`${inQuotes(typed)} is not in this text, and no position from 0 to ${chosen.length - 1}${near && `; near are ${near}`}`, true);
    }
  }

  /** Places to choose from, each with the text around it; what is chosen is the last token of a place. */
  function offer(places, pieces, chosen) {
    const text = (from, to) => pieces.slice(Math.max(0, from), to).map((piece, i) => asText("", piece, from + i).text).join("");
    const buttons = places.slice(0, LISTED).map(({ from, at }) =>
      h(
        "button",
        { type: "button", class: "ap-place", on: { click: () => choose(at, chosen) } },
        h("span", { class: "ap-number", text: at.toLocaleString("en-US") }),
        h("bdi", { class: "ap-faint", text: cut(text(from - AROUND, from), 32) }),
        h("bdi", { class: "ap-here", text: text(from, at + 1) || "·" }),
        h("bdi", { class: "ap-faint", text: cut(text(at + 1, at + 1 + AROUND), 32) }),
      ),
    );
    const rest = places.length - buttons.length;
    const more = rest > 0 ? h("span", { class: "ap-faint", text: `and ${rest.toLocaleString("en-US")} more: type the position` }) : null;
    replace(list, buttons, more, button("close", () => replace(list)));
    buttons[0].focus();
  }

  function choose(at, chosen) {
    replace(list);
    app.say("");
    take(chosen.name, at);
    input.focus();
  }

  function update() {
    const { state } = app;
    const { chosen } = now();
    const here = at();
    const of = JSON.stringify([state.run, state.sample, chosen.sequence]);
    if (of !== offered) replace(list); // places of another text
    offered = of;
    for (const way of ways) way.setAttribute("aria-pressed", String(way.dataset.value === state.toward));
    label.textContent = chosen.name;
    if (input !== input.getRootNode().activeElement || here !== known) input.value = here; // what is being typed stays
    known = here;
    input.placeholder = "position or words";
    earlier.disabled = here < 1;
    later.disabled = here >= chosen.length - 1;
    const tokens = app.tokens(state.run, state.sample, chosen.sequence);
    text.textContent = cut(called(tokens, here), 32);
    text.title = textTitle(tokens.at(here), tokens.textAt(here));
  }

  return { element, update, step, at };
}
