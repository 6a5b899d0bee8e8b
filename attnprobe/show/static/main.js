/** The three ways in: a page, a notebook's cell, and one HTML file. */

import { createApp } from "./app.js";
import { h, replace } from "./dom.js";
import { completed } from "./held.js";
import { commSource, fileSource, httpSource } from "./source.js";
import { changed, START, toHash } from "./state.js";

/** Build the explorer inside of an element; what fails is said there. */
export async function mount(element, source, settings = {}) {
  try {
    return await createApp(element, source, settings);
  } catch (error) {
    replace(element, h("div", { class: "attnprobe" }, h("p", { class: "ap-note ap-wrong", role: "alert", text: error.message })));
    throw error;
  }
}

/** In a page of the server, which has left the link's key where only pages of its port find it (`guard.py`). */
export function mountPage(element) {
  return mount(element, httpSource("ask/", localStorage.getItem("attnprobe") ?? ""), { link: true });
}

/** In an HTML file, with the answers that it holds; `settings.state` is what opens where the link says nothing. */
export function mountFile(element, answers, { state = {} } = {}) {
  if (location.hash.length > 1) state = {};
  const first = toHash(changed(START, state));
  try {
    if (first) history.replaceState(null, "", first); // or "back" would lead to all heads, which were not opened
  } catch {
    // a page within another may have no address to write
  }
  return mount(element, completed(fileSource(answers)), { link: true, state });
}

/** In a notebook: the state is a trait of the widget, so Python sees it and can set it. */
export async function render({ model, el }) {
  const box = h("div"); // the host sets styles of its own element
  const size = () => (box.style.height = `${model.get("height")}px`);
  size();
  replace(el, box);
  box.addEventListener("keydown", (event) => {
    // JupyterLab would move to another cell by a slider's arrow keys, and delete one by d d
    if (!(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
  });
  let told = null;
  const source = commSource(model);
  const app = await mount(box, source, {
    state: model.get("state"),
    onState(state) {
      told = JSON.stringify(state);
      model.set("state", JSON.parse(told));
      model.save_changes();
    },
  });
  const listen = () => {
    if (JSON.stringify(changed(START, model.get("state"))) !== told) app.set(model.get("state"));
  };
  model.on("change:state", listen);
  model.on("change:height", size);
  return () => {
    model.off("change:state", listen);
    model.off("change:height", size);
    app.close();
    source.close();
  };
}
