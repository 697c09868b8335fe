// Queues: what waits, who takes it, and what is allowed at once.

import { acted, get } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, span, t } from "../i18n.js";
import { ask, nothing, trouble } from "../parts/dialog.js";
import { field } from "../parts/form.js";
import { table } from "../parts/list.js";
import { head, link, state, when } from "../parts/show.js";

const CAPS = ["cap", "tenant_cap", "key_cap"], RATES = ["rate", "tenant_rate", "key_rate"];

/** A rate as people write it: so many in so many seconds, and how many more one window may see. */
const written = (rate) => (rate ? `${rate.n}/${rate.seconds}${rate.burst ? `+${rate.burst}` : ""}` : "");

function rate(text) {
  const [, n, seconds, burst] = /^\s*(\d+)\s*\/\s*(\d+(?:\.\d+)?)\s*(?:\+\s*(\d+)\s*)?$/.exec(text) ?? [];
  if (!n) throw new Error(t("queues.rate.wrong", { text }));
  return { n: Number(n), seconds: Number(seconds), burst: Number(burst ?? 0) };
}

/** A field for each limit there is: what is set replaces them all. */
const limits = (terms) => [
  ...CAPS.map((name) => field(`queues.${name}`, h("input", { class: "i num", name, type: "number", min: 1, value: terms[name] ?? "" }))),
  ...RATES.map((name) => field(`queues.${name}`, h("input", { class: "i mono", name, dir: "ltr", placeholder: "100/60", value: written(terms[name]) }), "queues.rate.hint")),
];

function allowed(values) {
  const given = (names, read) => names.filter((name) => values[name].trim()).map((name) => [name, read(values[name])]);
  const terms = Object.fromEntries([...given(CAPS, Number), ...given(RATES, rate)]);
  return Object.keys(terms).length ? { action: "set_terms", terms } : { action: "end_terms" };
}

export default function queues({ role, hear }) {
  const place = busy();
  const act = (queue, body) => acted(`/v1/operate/queues/${encodeURIComponent(queue)}/actions`, body);
  const load = () => get("/v1/operate/queues").then(({ data }) => fill(place, h("div", { class: "sheet" }, data.length ? table([
    { label: t("queues.queue"), class: "two", cell: (queue) => [h("div", link(`runs?queue=${encodeURIComponent(queue.queue)}`, ltr(queue.queue))),
      queue.paused_at ? h("div", { class: "small" }, state("paused", t("queues.by", { by: queue.paused_by, why: queue.pause_reason ?? "–" })), " ", when(queue.paused_at)) : null] },
    { label: t("queues.ready"), end: true, cell: (queue) => num(queue.ready) },
    { label: t("queues.oldest"), end: true, cell: (queue) => (queue.ready ? span(queue.oldest_seconds) : "–") },
    { label: t("queues.leased"), end: true, cell: (queue) => num(queue.leased) },
    { label: t("queues.workers"), end: true, cell: (queue) => (queue.workers ? h("span", { title: t("queues.slots", { busy: queue.leased, slots: queue.slots }) }, num(queue.workers)) : h("span", { class: "dim" }, "–")) },
    { label: t("queues.terms"), cell: (queue) => (queue.terms ? Object.entries(queue.terms).filter(([, value]) => value).map(([name, value]) => [h("span", { class: "tag" }, t(`queues.${name}`), " ", ltr(typeof value === "object" ? `${written(value)} s` : num(value))), " "]) : h("span", { class: "dim" }, t("queues.all"))) },
    role.rank >= 2 && { label: "", end: true, cell: (queue) => buttons(queue) },
  ].filter(Boolean), data, { label: t("queues.title"), key: (queue) => queue.queue }) : nothing("queues.none")))).catch((error) => fill(place, trouble(error, load)));
  function buttons(queue) {
    const name = queue.queue;
    return [
      role.rank >= 3 && !name.startsWith("node.") && name !== "workflows" ? h("button", { class: "b tiny", type: "button", data: { act: "limit" }, onclick: () => ask({
        title: t("queues.terms.ask", { queue: name }), text: t("queues.terms.say"), reason: "wanted", then: load, fields: limits(queue.terms ?? {}),
        act: ({ reason, ...values }) => act(name, { ...allowed(values), ...(reason.trim() ? { reason: reason.trim() } : {}) }),
      }) }, t("queues.limit")) : null, " ",
      queue.paused_at
        ? h("button", { class: "b tiny first", type: "button", onclick: () => ask({ title: `${t("queues.resume")}: ${name}`, reason: "none", then: load, act: () => act(name, { action: "resume" }) }) }, t("queues.resume"))
        : h("button", { class: "b tiny", type: "button", onclick: () => ask({ title: t("queues.pause.ask", { queue: name }), text: t("queues.pause.say"), danger: true, then: load, act: ({ reason }) => act(name, { action: "pause", reason }) }) }, t("queues.pause")),
    ];
  }
  load();
  const free = hear("now", load);
  return { element: h("div", head(t("queues.title"), t("queues.sub")), place), end: free };
}
