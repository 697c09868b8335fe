// Now: what runs, what waits, what fails.

import { get } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, span, t, word } from "../i18n.js";
import { nothing, trouble } from "../parts/dialog.js";
import { table } from "../parts/list.js";
import { bars, head, link, meter, sheet, state, when } from "../parts/show.js";

const BACK = 7200, EVERY = 300;

export default function now({ hear, now: known, role, go }) {
  const place = busy({ class: "stack" });
  const element = h("div", head(t("now.title"), t("now.sub")), place);
  const show = (data) => fill(place, view(data, role, go));
  const free = hear("now", show);
  if (known) show(known);
  else get("/v1/operate/now").then(show).catch((error) => fill(place, trouble(error)));
  return { element, end: free };
}

function view(data, role, go) {
  const sum = (name) => data.runs.reduce((all, kind) => all + kind[name], 0);
  const failed = data.failures.reduce((all, { n }) => all + n, 0);
  const ready = data.queues.reduce((all, queue) => all + queue.ready, 0);
  const oldest = Math.max(0, ...data.queues.filter((q) => q.ready).map((queue) => queue.oldest_seconds));
  const online = data.nodes.find(({ status }) => status === "online") ?? { nodes: 0, slots: 0 };
  const figures = [
    figure(t("now.running"), num(sum("running")), "runs?state=running"),
    figure(t("now.failed"), num(failed), "failures", failed ? "bad" : ""),
    role.wide && figure(t("now.waiting"), num(ready), "queues", ready > 100 ? "wait" : ""),
    role.wide && figure(t("now.oldest"), ready ? span(oldest) : "–", "queues", oldest > 300 ? "wait" : ""),
    role.wide && figure(t("now.nodes"), num(online.nodes), "nodes", "", t("now.slots", { n: online.slots })),
  ];
  return [
    h("div", { class: "figures" }, figures),
    data.queues.filter((queue) => queue.paused).map((queue) => h("div", { class: "ask wait" }, h("span", { class: "say grow" }, t("now.paused", { queue: queue.queue })), link("queues", t("nav.queues")))),
    data.parked.map(({ reason, runs }) => h("div", { class: "ask wait" }, h("span", { class: "say grow" }, t("now.parked", { n: runs }), " · ", word("parked", reason)), link("versions", t("nav.versions")))),
    data.database ? h("div", { class: "ask bad" }, h("span", { class: "say" }, t("now.snapshot", { app: data.database.application || "?", span: span(data.database.seconds) }))) : null,
    h("div", { class: "cols" },
      sheet(t("now.failing"), t("now.per"), h("div", { class: "in" }, failed ? bars(data.failures, { back: BACK, every: EVERY, label: t("now.failing") }) : h("p", { class: "dim" }, t("now.failing.none")))),
      sheet(t("now.causes"), link("failures", t("now.all")), data.causes.length ? table([
        { label: t("failures.cause"), class: "two", cell: (cause) => [h("div", link(`failures/${encodeURIComponent(cause.fingerprint)}`, ltr(cause.code))), h("div", { class: "small dim clip", dir: "auto" }, cause.message)] },
        { label: t("failures.runs"), end: true, cell: (cause) => num(cause.runs) },
        { label: t("failures.last"), end: true, cell: (cause) => when(cause.last_at) },
      ], data.causes, { open: (cause) => go(`failures/${encodeURIComponent(cause.fingerprint)}`), label: t("now.causes") }) : h("div", { class: "in dim" }, t("failures.none")))),
    data.bulk.length ? sheet(t("now.bulk"), link("bulk", t("now.all")), table([
      { label: t("bulk.action"), cell: (one) => link(`bulk/${one.id}`, t(`act.${one.action}`)) },
      { label: t("bulk.state"), cell: (one) => state(one.state) },
      { label: t("bulk.progress"), cell: (one) => h("div", meter(one.turned, one.total), h("span", { class: "small dim num" }, `${num(one.turned)} / ${num(one.total)}`)) },
    ], data.bulk, { open: (one) => go(`bulk/${one.id}`) })) : null,
    h("div", { class: "cols" },
      role.wide ? sheet(t("now.queues"), link("queues", t("now.all")), data.queues.length ? table([
        { label: t("queues.queue"), cell: (queue) => ltr(queue.queue) },
        { label: t("queues.ready"), end: true, cell: (queue) => num(queue.ready) },
        { label: t("queues.leased"), end: true, cell: (queue) => num(queue.leased) },
        { label: t("queues.oldest"), end: true, cell: (queue) => (queue.ready ? span(queue.oldest_seconds) : "–") },
      ], data.queues, { label: t("now.queues") }) : nothing("now.quiet")) : null,
      sheet(t("now.kinds"), link("runs", t("now.all")), data.runs.length ? table([
        { label: t("runs.kind"), cell: (kind) => link(`runs?kind=${encodeURIComponent(kind.kind)}`, ltr(kind.kind)) },
        { label: t("state.running"), end: true, cell: (kind) => count(kind, "running") },
        { label: t("state.succeeded"), end: true, cell: (kind) => count(kind, "succeeded") },
        { label: t("state.failed"), end: true, cell: (kind) => count(kind, "failed") },
      ], data.runs, { open: (kind) => go(`runs?kind=${kind.kind}`), label: t("now.kinds") }) : nothing("now.nothing"))),
  ];
}

function figure(of, n, path, tone, note) {
  const a = link(path, h("div", { class: "of" }, of), h("div", { class: `n ${tone ?? ""}` }, n), note ? h("div", { class: "note" }, note) : null);
  a.className = "figure";
  return a;
}

function count(kind, name) {
  const n = kind[name];
  if (!n) return h("span", { class: "dim" }, "–");
  return link(`runs?kind=${kind.kind}&state=${name}`, h("span", { class: name === "failed" ? "state bad" : "num" }, num(n)));
}
