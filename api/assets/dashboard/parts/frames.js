// A film frame by frame: a cell for each, or for some that lie together, in the colour of the one that people should look at first.

import { get, picture } from "../api.js";
import { fill, h, ltr } from "../dom.js";
import { num, span, t, word } from "../i18n.js";
import { meter, pairs, sheet } from "./show.js";

/** Most cells that are drawn. */
const CELLS = 600;
/** What stands out comes first. */
const STATES = ["failed", "black", "transparent", "duplicate", "repairing", "waiting", "rendering", "stored", "repaired", "reused", "accepted"];
const BAD = new Set(["failed", "black", "transparent", "duplicate"]);

/** The film of a run: an element, and `load`, which has it look again. What is shown stays while there is nothing newer. */
export function filmOf(id) {
  const element = h("div");
  const image = h("img", { alt: t("film.last"), class: "last", hidden: true });
  const load = () => get(`/v1/operate/runs/${id}/film`).then((film) => {
    fill(element, sheetOf(film, image));
    if (film.render.last_frame_url) show(image, `/v1/operate/runs/${id}/last-frame`);
    else image.hidden = true;
  }).catch((error) => { if (error.status === 404) fill(element); });
  return { element, load };
}

/** The frame that came last, in the place of the one before once it is there. */
async function show(image, path) {
  const address = await picture(path).catch(() => null);
  if (!address) return;
  const before = image.src;
  image.onload = image.onerror = () => { if (before) URL.revokeObjectURL(before); };
  image.src = address;
  image.hidden = false;
}

function sheetOf({ render, frames }, image) {
  const total = render.frames.total;
  const counts = new Map();
  for (const { first, last, state } of frames) counts.set(state, (counts.get(state) ?? 0) + last - first + 1);
  const bad = frames.filter((one) => BAD.has(one.state));
  const left = render.eta_seconds === null ? null : [span(render.eta_seconds), render.eta_p90_seconds ? h("span", { class: "dim" }, " · ", t("film.p90", { span: span(render.eta_p90_seconds) })) : null];
  return sheet(t("film.title"), word("film.status", render.status), h("div", { class: "in film" },
    h("div", { class: "stack" },
      h("div", meter(render.frames.rendered, total), h("span", { class: "small dim num" }, t("film.of", { done: num(render.frames.rendered), total: num(total) }))),
      h("div", { class: "frames", role: "img", "aria-label": [...counts].map(([state, count]) => `${word("film.frame", state)}: ${num(count)}`).join(", ") },
        cells(frames, total).map(({ first, last, state }) => h("i", { class: state, title: `${first === last ? num(first) : `${num(first)}–${num(last)}`}: ${word("film.frame", state)}` }))),
      h("div", { class: "legend frames-legend" }, STATES.filter((state) => counts.has(state)).map((state) => h("span", h("i", { class: state }), word("film.frame", state), " ", h("span", { class: "num dim" }, num(counts.get(state)))))),
      bad.length ? h("p", { class: "small" }, t("film.bad"), " ", bad.slice(0, 12).map((one, n) => [n ? ", " : "", ltr(one.first === one.last ? String(one.first) : `${one.first}–${one.last}`), " ", word("film.frame", one.state)]), bad.length > 12 ? " …" : "") : null),
    h("div", { class: "stack" }, image,
      pairs([[t("film.template"), [ltr(render.template), " · ", num(render.template_version)]], [t("film.size"), ltr(`${render.width} × ${render.height}, ${render.fps} fps`)],
        [t("film.length"), span(render.duration_seconds)], [t("film.left"), left], [t("film.waits"), render.waiting_because], [t("film.render"), ltr(render.id)]]))));
}

/** Frames as cells, each in the state of its worst frame. */
function cells(frames, total) {
  const size = Math.max(1, Math.ceil(total / CELLS));
  const all = [];
  for (let first = 0, at = 0; first < total; first += size) {
    const end = Math.min(total, first + size) - 1;
    while (at < frames.length && frames[at].last < first) at += 1;
    let state = "waiting", worst = STATES.length;
    for (let i = at; i < frames.length && frames[i].first <= end; i += 1) {
      const rank = STATES.indexOf(frames[i].state);
      if (rank < worst) [state, worst] = [frames[i].state, rank];
    }
    all.push({ first, last: end, state });
  }
  return all;
}
