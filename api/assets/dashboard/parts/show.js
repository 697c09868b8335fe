// How single things look: states, times, ids, JSON, bars over time.

import { h, ltr, say } from "../dom.js";
import { ago, bytes, clock, moment, num, t, word } from "../i18n.js";

const TONES = {
  run: ["running", "leased", "rendering", "registering"],
  good: ["open", "paid", "confirmed", "succeeded", "ok", "done", "finished", "online", "active", "delivered", "in_use"],
  bad: ["review", "refused", "failed", "lost", "broken", "timeout", "quarantined", "nobody_knows", "aborted", "suspended", "missed"],
  wait: ["proposed", "refunding", "verifying", "waiting", "queued", "ready", "paused", "previewed", "draining", "pending", "conflict", "disabled"],
};

/** A state in words, with a shape and a colour. */
export function state(name, words) {
  const tone = Object.keys(TONES).find((tone) => TONES[tone].includes(name));
  return h("span", { class: `state ${tone ?? ""}`, "data-state": name }, words ?? word("state", name));
}

/** How long ago, with the very time behind it. */
export function when(text) {
  return text ? h("time", { datetime: text, title: moment(text), class: "num" }, ago(text)) : h("span", { class: "dim" }, "–");
}

/** An id, short enough to tell it from its neighbours: the end of it differs. */
export function short(id) {
  return ltr(id ? id.slice(-12) : "–", { title: id, class: "mono num" });
}

/** A number of bytes, which stands by itself in whatever direction is read. */
export function size(n) {
  return h("bdi", bytes(n));
}

/** A line of a command line, quoted where a shell would read it otherwise. */
export function line(...words) {
  return words.map((word) => (/^[\w./:=,@+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

/** A link within the dashboard. */
export function link(path, ...words) {
  return h("a", { href: `/dashboard/${path}` }, ...words);
}

/** JSON, as it is. */
export function json(value) {
  return h("pre", { class: "json", tabindex: 0, dir: "ltr" }, JSON.stringify(value, null, 2));
}

/** Bars over the last stretches of time; `data`: `{ at, n }`, those without any are left out. */
export function bars(data, { back, every, label }) {
  const now = Math.floor(Date.now() / 1000 / every) * every;
  const counts = new Map(data.map(({ at, n }) => [Math.round(new Date(at).getTime() / 1000), n]));
  const stretches = [];
  for (let at = now - back + every; at <= now; at += every) stretches.push({ at, n: counts.get(at) ?? 0 });
  const most = Math.max(1, ...stretches.map(({ n }) => n));
  const all = stretches.reduce((sum, { n }) => sum + n, 0);
  return h("div", h("div", { class: "bars", role: "img", "aria-label": `${label}: ${num(all)}` }, stretches.map(({ at, n }) =>
    h("div", { class: `bar${n ? " some" : ""}`, title: t("now.bar", { n, at: clock(at * 1000) }), at: { "block-size": `${Math.max(2, (n / most) * 100)}%` } }))),
  h("div", { class: "axis num" }, h("span", clock(stretches[0].at * 1000)), h("span", clock(now * 1000))));
}

/** How far something has come. */
export function meter(done, total) {
  const part = total > 0 ? Math.min(1, done / total) : 0;
  return h("div", { class: "meter", role: "progressbar", "aria-valuenow": done, "aria-valuemin": 0, "aria-valuemax": total, "aria-label": `${num(done)} / ${num(total)}` },
    h("span", { at: { "inline-size": `${part * 100}%` } }));
}

/** Names the page that an element is about to stand on, for its tab and for those who listen; once, however often it is loaded.
    What is loaded after its page was left stands nowhere, and names nothing. */
export function entitle(title, element) {
  queueMicrotask(() => {
    const whole = `${title} · FlatRender`;
    if (!element.isConnected || document.title === whole) return;
    document.title = whole;
    say(title);
  });
}

/** The head of a page. */
export function head(title, sub, ...buttons) {
  const element = h("div", { class: "head" }, h("div", h("h1", title), sub ? h("p", { class: "sub", dir: "auto" }, sub) : null), buttons.length ? h("div", { class: "do" }, buttons) : null);
  entitle(title instanceof Node ? title.textContent : title, element);
  return element;
}

/** A sheet with a title. */
export function sheet(title, more, ...content) {
  return h("section", { class: "sheet", "aria-label": title }, h("div", { class: "top" }, h("h2", title), more ? h("span", { class: "more dim" }, more) : null), content);
}

/** Names and values. */
export function pairs(all) {
  return h("dl", { class: "pairs" }, all.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", name), h("dd", value)]));
}
