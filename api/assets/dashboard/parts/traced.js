// A traced picture, made of shapes that are read one by one: whatever else stood in the SVG stays out, so that nothing of it runs here.

import { h } from "../dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEAD = /^<svg xmlns="[^"]*" viewBox="0 0 (\d{1,5}) (\d{1,5})"/;
const SHAPE = /<path fill="(#[0-9a-f]{6})"\sstyle="fill:var\(--(slot-\d{1,2}),#[0-9a-f]{6}\)" d="([MLHVCSQTAZmlhvcsqtaze0-9 ,.+-]*)"\/>/g;

/** The drawing, and `paint(slot, colour)`, which changes a colour at once; none when the text is no traced picture. */
export function drawing(text, words) {
  const size = HEAD.exec(text);
  const shapes = [...text.matchAll(SHAPE)].map(([, color, slot, d]) => ({ color, slot, d }));
  if (!size || !shapes.length) return null;
  const svg = element("svg", { viewBox: `0 0 ${size[1]} ${size[2]}`, role: "img", "aria-label": words, class: "traced" });
  for (const { color, slot, d } of shapes) {
    const path = element("path", { d, fill: color });
    path.style.setProperty("fill", `var(--${slot}, ${color})`);
    svg.append(path);
  }
  return { element: svg, paint: (slot, color) => svg.style.setProperty(`--${slot}`, color) };
}

/** The SVG in other colours, as a file of its own: each shape has its colour, and no property is needed any more. */
export function recoloured(text, colors) {
  const [, width, height] = HEAD.exec(text);
  const paths = [...text.matchAll(SHAPE)].map(([, color, slot, d]) => `<path fill="${colors.get(slot) ?? color}" d="${d}"/>`);
  return new Blob([`<svg xmlns="${SVG}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${paths.join("")}</svg>`], { type: "image/svg+xml" });
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

/** Colours side by side. */
export function swatches(slots) {
  return h("span", { class: "swatches", "aria-hidden": "true" }, slots.map((slot) => h("i", { at: { background: slot.color } })));
}
