// Makes elements. Text is always put in as text: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("p", { class: "dim", onclick: f }, "text", other)`. Null and false children are left out. */
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  if (attributes && (attributes instanceof Node || typeof attributes !== "object" || Array.isArray(attributes))) {
    children.unshift(attributes);
    attributes = null;
  }
  for (const [key, value] of Object.entries(attributes ?? {})) set(element, key, value);
  add(element, children);
  return element;
}

function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key === "value") element.value = value;
  else if (key === "data") Object.entries(value).forEach(([name, text]) => { element.dataset[name] = text; });
  else if (key === "at") Object.entries(value).forEach(([name, text]) => element.style.setProperty(name, text));
  else element.setAttribute(key, value === true ? "" : String(value));
}

/** A place that waits to be filled. */
export const busy = (attributes) => h("div", { "aria-busy": "true", ...attributes });

/** Adds children: elements, texts, lists of them. */
export function add(element, children) {
  for (const child of [children].flat(9)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Puts these children in the place of what is there. Whoever stands on something that is there again, or on its page, goes on from there:
    what loads itself anew takes nobody's place away. What waited to be filled is busy no more. */
export function fill(element, ...children) {
  const stood = document.activeElement;
  const mark = stood !== element && element.contains(stood) ? markOf(element, stood) : null;
  element.replaceChildren();
  add(element, children);
  element.removeAttribute("aria-busy");
  if (mark) (alike(element, mark.like)[mark.n] ?? document.getElementById("main"))?.focus({ preventScroll: true });
  return element;
}

/** What an element is to whoever uses it, and the how manieth of its like. */
function markOf(room, element) {
  const like = likeness(element);
  return { like, n: alike(room, like).indexOf(element) };
}

function alike(room, like) {
  const name = like.slice(0, like.indexOf(" "));
  return [...room.querySelectorAll(name)].filter((one) => likeness(one) === like);
}

function likeness(element) {
  const words = element.dataset.key ?? element.getAttribute("href") ?? element.getAttribute("name") ?? element.getAttribute("aria-label") ?? element.textContent;
  return `${element.localName} ${words}`;
}

/** A text that reads from left to right wherever it stands: ids, codes, names of machines. */
export function ltr(text, attributes) {
  return h("bdi", { dir: "ltr", class: "mono", ...attributes }, text);
}

/** A small drawing: paths on a 16 by 16 field, in the colour of the text. */
export function icon(...paths) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: 16, height: 16, fill: "none", stroke: "currentColor",
    "stroke-width": 1.5, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" })) svg.setAttribute(key, value);
  for (const d of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** Says something to those who listen instead of look; the same words twice are said twice. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  setTimeout(() => { place.textContent = text; }, 50);
}
