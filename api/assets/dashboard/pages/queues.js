// Queues: what waits, who takes it, and what is allowed at once.

import { get, post } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, span, t } from "../i18n.js";
import { ask, nothing, trouble } from "../parts/dialog.js";
import { field } from "../parts/form.js";
import { table } from "../parts/list.js";
import { head, link, state, when } from "../parts/show.js";

export default function queues({ role, hear }) {
  const place = busy();
  const act = (queue, body) => post(`/v1/operate/queues/${encodeURIComponent(queue)}/actions`, body);
  const load = () => get("/v1/operate/queues").then(({ data }) => fill(place, h("div", { class: "sheet" }, data.length ? table([
    { label: t("queues.queue"), class: "two", cell: (queue) => [h("div", link(`runs?queue=${encodeURIComponent(queue.queue)}`, ltr(queue.queue))),
      queue.paused_at ? h("div", { class: "small" }, state("paused", t("queues.by", { by: queue.paused_by, why: queue.pause_reason ?? "–" })), " ", when(queue.paused_at)) : null] },
    { label: t("queues.ready"), end: true, cell: (queue) => num(queue.ready) },
    { label: t("queues.oldest"), end: true, cell: (queue) => (queue.ready ? span(queue.oldest_seconds) : "–") },
    { label: t("queues.leased"), end: true, cell: (queue) => num(queue.leased) },
    { label: t("queues.workers"), end: true, cell: (queue) => (queue.workers ? h("span", { title: t("queues.slots", { busy: queue.leased, slots: queue.slots }) }, num(queue.workers)) : h("span", { class: "dim" }, "–")) },
    { label: t("queues.terms"), cell: (queue) => (queue.terms ? Object.entries(queue.terms).filter(([, value]) => value).map(([name, value]) => [h("span", { class: "tag" }, ltr(`${name} ${typeof value === "object" ? `${value.n}/${value.seconds} s` : value}`)), " "]) : h("span", { class: "dim" }, t("queues.all"))) },
    role.rank >= 2 && { label: "", end: true, cell: (queue) => buttons(queue) },
  ].filter(Boolean), data, { label: t("queues.title") }) : nothing("queues.none")))).catch((error) => fill(place, trouble(error, load)));
  function buttons(queue) {
    const name = queue.queue;
    return [
      role.rank >= 3 && !name.startsWith("node.") && name !== "workflows" ? h("button", { class: "b tiny", type: "button", onclick: () => ask({
        title: t("queues.terms.ask", { queue: name }), text: t("queues.terms.say"), reason: "wanted", then: load,
        fields: [field("queues.cap", h("input", { class: "i num", name: "cap", type: "number", min: 1, value: queue.terms?.cap ?? "" })), field("queues.tenantcap", h("input", { class: "i num", name: "tenant_cap", type: "number", min: 1, value: queue.terms?.tenant_cap ?? "" }))],
        act: ({ cap, tenant_cap, reason }) => act(name, { ...(cap || tenant_cap ? { action: "set_terms", terms: { ...(cap ? { cap: Number(cap) } : {}), ...(tenant_cap ? { tenant_cap: Number(tenant_cap) } : {}) } } : { action: "end_terms" }), ...(reason.trim() ? { reason: reason.trim() } : {}) }),
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
