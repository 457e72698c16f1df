// Shows each state that the server sends. A state is a list of elements, each of them
// [name, attributes, children], and all text becomes text nodes. See asupplemented/web/page.py.
"use strict";

const root = document.getElementById("status");
const live = document.getElementById("live");
const RETRY = 5000; // milliseconds until a connection that the browser has given up is made again
const SILENCE = 10000; // milliseconds without a state after which it is called old
let shown = null; // the state that is shown
let taken = ""; // when it was taken
let silence = 0; // a timer

function make(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [name, attributes, children] = node;
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.map(make));
  return element;
}

// Changes an element from one state to another, and leaves alone what is the same in both: what
// the reader has opened stays open, and what is selected stays selected.
function change(element, before, after) {
  if (typeof after === "string" || typeof before === "string" || before[0] !== after[0]) {
    if (before !== after) element.replaceWith(make(after));
    return;
  }
  for (const key of Object.keys(before[1])) {
    if (!(key in after[1])) element.removeAttribute(key);
  }
  for (const [key, value] of Object.entries(after[1])) {
    if (before[1][key] !== value) element.setAttribute(key, value);
  }
  changeChildren(element, before[2], after[2]);
}

const keyOf = (node, position) => node[1]?.["data-key"] ?? position;

// Children that have a key keep their element, wherever they move.
function changeChildren(parent, before, after) {
  const old = new Map();
  [...parent.childNodes].forEach((element, n) => {
    const key = keyOf(before[n], n);
    if (old.has(key)) element.remove();
    else old.set(key, [element, before[n]]);
  });
  after.forEach((node, position) => {
    const key = keyOf(node, position);
    const place = parent.childNodes[position] ?? null;
    const known = old.get(key);
    if (known === undefined) {
      parent.insertBefore(make(node), place);
    } else {
      old.delete(key);
      if (known[0] !== place) parent.insertBefore(known[0], place);
      change(known[0], known[1], node);
    }
  });
  for (const [element] of old.values()) element.remove();
}

function tell(state, text) {
  live.className = state;
  if (live.textContent !== text) live.textContent = text;
}

function show(event) {
  const state = JSON.parse(event.data);
  if (shown === null) root.replaceChildren(...state.tree.map(make));
  else changeChildren(root, shown, state.tree);
  shown = state.tree;
  taken = state.taken;
  tell("live", `Live · ${taken}`);
  clearTimeout(silence);
  silence = setTimeout(() => tell("old", `No news since ${taken}`), SILENCE);
}

function connect() {
  const source = new EventSource("events");
  source.addEventListener("status", show);
  source.addEventListener("error", () => {
    tell("old", taken ? `Connection lost · ${taken}` : "Connection lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  });
}

connect();
