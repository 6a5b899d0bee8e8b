import assert from "node:assert/strict";
import { test } from "node:test";
import { keyGestures, pointerGestures } from "../../attnprobe/show/static/gestures.js";

/** An element that is not in a page. */
function made() {
  const log = [];
  const element = new EventTarget();
  element.getBoundingClientRect = () => ({ left: 10, top: 20 });
  element.setPointerCapture = () => {};
  const tell = (name) => (...values) => void log.push([name, ...values.map((value) => (typeof value === "number" ? Math.round(value * 1000) / 1000 + 0 : value))]);
  const names = ["zoom", "pan", "pick", "drag", "drop", "cancel", "step", "whole", "leave", "box", "largest"];
  const on = Object.fromEntries(names.map((name) => [name, tell(name)]));
  pointerGestures(element, { ...on, hover: () => {}, wheel: () => true, grab: (point, shift) => (shift ? "box" : "pan") });
  keyGestures(element, on);
  let time = 1000;
  const send = (type, x, y, more = {}) => {
    const event = new Event(type, { cancelable: true });
    const all = { pointerId: 1, pointerType: "mouse", button: 0, clientX: x + 10, clientY: y + 20, shiftKey: false, deltaMode: 0, timeStamp: (time += 16), ...more };
    for (const [name, value] of Object.entries(all)) Object.defineProperty(event, name, { value });
    element.dispatchEvent(event);
    return event;
  };
  return { send, log, wait: () => (time += 1000) };
}

test("a drag moves by what the pointer moves, and is no tap", () => {
  const { send, log } = made();
  send("pointerdown", 100, 100);
  send("pointermove", 130, 90);
  send("pointermove", 135, 95);
  send("pointerup", 135, 95);
  assert.deepEqual(log, [["pan", 30, -10], ["pan", 5, 5]]);
});

test("a tap chooses, also if the hand shakes; two are a zoom there", () => {
  const { send, log, wait } = made();
  const tap = (x, y) => {
    send("pointerdown", x, y);
    send("pointermove", x + 2, y);
    send("pointerup", x, y);
  };
  tap(50, 60);
  wait();
  tap(50, 60);
  tap(52, 61);
  assert.deepEqual(log, [["pick", { x: 50, y: 60 }], ["pick", { x: 50, y: 60 }], ["zoom", 2, { x: 52, y: 61 }]]);
});

test("with shift it is a box from corner to corner", () => {
  const { send, log } = made();
  send("pointerdown", 10, 20, { shiftKey: true });
  send("pointermove", 60, 80);
  send("pointerup", 60, 80);
  assert.deepEqual(log, [["drag", "box", { x: 10, y: 20 }, { x: 60, y: 80 }], ["drop", "box", { x: 10, y: 20 }, { x: 60, y: 80 }]]);
});

test("two fingers zoom by their distance about the point between them, which moves along", () => {
  const { send, log } = made();
  const finger = (pointerId) => ({ pointerId, pointerType: "touch" });
  send("pointerdown", 100, 100, finger(1));
  send("pointerdown", 200, 100, finger(2));
  send("pointermove", 300, 100, finger(2));
  assert.deepEqual(log, [["cancel"], ["pan", 50, 0], ["zoom", 2, { x: 200, y: 100 }]]);
  log.length = 0;
  send("pointerup", 300, 100, finger(2));
  send("pointermove", 120, 100, finger(1)); // what is left of a pinch moves nothing
  send("pointerup", 120, 100, finger(1));
  assert.deepEqual(log, []);
});

test("another button, and a pointer that is taken away, do nothing", () => {
  const { send, log } = made();
  send("pointerdown", 10, 10, { button: 2 });
  send("pointerup", 10, 10, { button: 2 });
  send("pointerdown", 10, 10);
  send("pointercancel", 10, 10);
  send("pointermove", 90, 90);
  assert.deepEqual(log, [["cancel"]]);
});

test("a wheel zooms where it is; lines and a touchpad's pinch are as fast", () => {
  const { send, log } = made();
  const event = send("wheel", 30, 40, { deltaY: -240, ctrlKey: false });
  assert.equal(event.defaultPrevented, true);
  send("wheel", 30, 40, { deltaY: 12, deltaMode: 1, ctrlKey: false });
  send("wheel", 30, 40, { deltaY: -60, ctrlKey: true });
  assert.deepEqual(log, [["zoom", 2, { x: 30, y: 40 }], ["zoom", 0.5, { x: 30, y: 40 }], ["zoom", 2, { x: 30, y: 40 }]]);
});

test("a wheel's whole pixels do not move what a pointer told more finely", () => {
  const { send, log } = made();
  send("pointermove", 30.4, 40.6);
  send("wheel", 30, 40, { deltaY: -240, ctrlKey: false });
  send("wheel", 90, 40, { deltaY: -240, ctrlKey: false });
  assert.deepEqual(log, [["zoom", 2, { x: 30.4, y: 40.6 }], ["zoom", 2, { x: 90, y: 40 }]]);
});

test("keys that mean something go no further, others do", () => {
  const { send, log } = made();
  const key = (name, more = {}) => send("keydown", 0, 0, { key: name, ctrlKey: false, metaKey: false, altKey: false, ...more });
  for (const name of ["+", "-", "0", "Enter", "Escape", "b", "m", "ArrowLeft", "ArrowDown"]) assert.equal(key(name).defaultPrevented, true, name);
  key("ArrowUp", { shiftKey: true });
  assert.equal(key("]").defaultPrevented, false);
  assert.equal(key("+", { ctrlKey: true }).defaultPrevented, false);
  assert.deepEqual(log, [["zoom", 1.5], ["zoom", 0.667], ["whole"], ["pick"], ["leave"], ["box"], ["largest"], ["pan", 60, 0], ["pan", 0, -60], ["step", -1, 0]]);
});
