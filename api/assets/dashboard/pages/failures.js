// Failures, grouped by their cause; and one group, with what to do about all of it.

import { get } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t } from "../i18n.js";
import { nothing, trouble } from "../parts/dialog.js";
import { table, walk } from "../parts/list.js";
import { head, link, pairs, sheet, when } from "../parts/show.js";
import { act_on_many, takes } from "./bulk.js";
import { runs_list } from "./runs.js";

export default function failures(page) {
  return page.rest ? group(page) : groups(page);
}

function groups({ go }) {
  const place = busy();
  const open = (cause) => go(`failures/${encodeURIComponent(cause.fingerprint)}`);
  const free = walk(place, open);
  const load = () => get("/v1/operate/failures").then(({ data }) => fill(place, h("div", { class: "sheet" }, data.length ? table([
    { label: t("failures.cause"), class: "two", cell: (cause) => [h("div", link(`failures/${encodeURIComponent(cause.fingerprint)}`, ltr(cause.code))), h("div", { class: "small dim clip", dir: "auto" }, cause.message)] },
    { label: t("failures.in"), cell: (cause) => cause.versions.map((name) => h("span", { class: "tag" }, ltr(name))) },
    { label: t("failures.runs"), end: true, cell: (cause) => num(cause.runs) },
    { label: t("failures.tenants"), end: true, cell: (cause) => num(cause.tenants) },
    { label: t("failures.first"), end: true, cell: (cause) => when(cause.first_at) },
    { label: t("failures.last"), end: true, cell: (cause) => when(cause.last_at) },
  ], data, { open, label: t("failures.title") }) : nothing("failures.none")))).catch((error) => fill(place, trouble(error, load)));
  load();
  return { element: h("div", head(t("failures.title"), t("failures.sub"), h("button", { class: "b", type: "button", onclick: load }, t("list.refresh"))), place), end: free };
}

function group(page) {
  const { rest: fingerprint, role, go } = page;
  const place = h("div", { class: "stack" });
  const element = h("div", place);
  let list = null;
  get(`/v1/operate/failures/${encodeURIComponent(fingerprint)}`).then((cause) => {
    list = runs_list(page, { fingerprint });
    const filter = { fingerprint };
    const kinds = [...new Set(cause.versions.map((name) => name.replace(/\.v\d+$/, "")))];
    const like = (action, words, tone = "") => {
      const some = kinds.filter((kind) => takes(action, kind));
      return some.length ? h("button", { class: `b ${tone}`, type: "button", data: { act: action }, onclick: () => act_on_many(go, action, { kinds: some, states: ["running"] }) }, t(words)) : null;
    };
    const most = cause.workers[0]?.attempts ?? 1;
    fill(place,
      head(ltr(cause.code, { class: "" }), cause.message,
        role.rank >= 1 ? h("button", { class: "b first", type: "button", data: { act: "retry" }, onclick: () => act_on_many(go, "retry", filter) }, t("failures.retry")) : null),
      h("div", { class: "cols" },
        sheet(t("run.details"), null, h("div", { class: "in" }, pairs([
          [t("failures.runs"), num(cause.runs)], [t("failures.tenants"), num(cause.tenants)], [t("failures.first"), when(cause.first_at)], [t("failures.last"), when(cause.last_at)],
          [t("failures.in"), cause.versions.map((name) => h("span", { class: "tag" }, ltr(name)))],
        ]))),
        sheet(t("failures.who"), t("failures.who.say"), cause.workers.length ? table([
          { label: t("run.by"), cell: (one) => ltr(one.worker) },
          { label: t("run.key"), cell: (one) => (one.key ? ltr(one.key) : t("run.itself")) },
          { label: t("failures.attempts"), end: true, cell: (one) => h("span", { class: one.attempts > most / 2 ? "state bad" : "" }, num(one.attempts)) },
        ], cause.workers) : h("div", { class: "in dim" }, t("run.none")))),
      role.rank >= 1 ? sheet(t("failures.like"), null, h("div", { class: "in stack" }, h("p", { class: "dim" }, t("failures.like.say")),
        h("div", { class: "line" }, link(`runs?${new URLSearchParams({ kind: kinds.join(","), state: "running" })}`, t("failures.show")),
          like("cancel", "failures.cancel", "bad"), role.rank >= 2 ? like("set_priority", "act.set_priority") : null))) : null,
      h("h2", t("failures.runs")), list.element);
  }).catch((error) => fill(place, head(ltr(fingerprint, { class: "" }), null, link("failures", t("nav.failures"))), trouble(error)));
  return { element, end: () => list?.end() };
}
