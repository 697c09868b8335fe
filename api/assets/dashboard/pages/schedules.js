// Schedules: what the platform does by itself, and when.

import { get, write } from "../api.js";
import { fill, h, ltr } from "../dom.js";
import { moment, num, t, word } from "../i18n.js";
import { ask, nothing, trouble } from "../parts/dialog.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { entitle, head, link, pairs, sheet, state, when } from "../parts/show.js";

export default function schedules(page) {
  return page.rest ? one(page) : list(page);
}

const standing = (one) => (one.paused_at ? state("paused", t("schedules.paused")) : one.enabled ? when(one.next_at) : h("span", { class: "dim" }, t("schedules.off")));

function buttons(one, role, load) {
  if (role.rank < 3) return null;
  const act = (action, title) => ask({ title: `${title}: ${one.name}`, reason: "none", then: load, act: () => write(same(`schedule_${action}`, { schedule: one.id }), "POST", `/v1/platform/schedules/${one.id}/actions`, { action }) });
  return [
    one.paused_at ? h("button", { class: "b tiny first", type: "button", onclick: () => act("resume", t("schedules.resume")) }, t("schedules.resume")) : h("button", { class: "b tiny", type: "button", onclick: () => act("pause", t("schedules.pause")) }, t("schedules.pause")), " ",
    h("button", { class: "b tiny", type: "button", onclick: () => act("run", t("schedules.run")) }, t("schedules.run")),
  ];
}

function list({ go, role, query }) {
  const made = pages({
    path: "/v1/platform/schedules", query, key: (one) => one.id, label: t("schedules.title"), open: (one) => go(`schedules/${one.id}`),
    columns: [
      { label: t("schedules.name"), cell: (one) => link(`schedules/${one.id}`, ltr(one.name)) },
      { label: t("schedules.cron"), class: "two", cell: (one) => [ltr(one.cron), h("div", { class: "small dim" }, ltr(one.time_zone))] },
      { label: t("schedules.workflow"), cell: (one) => link(`runs?kind=${one.workflow}`, ltr(one.workflow)) },
      { label: t("schedules.next"), end: true, cell: standing },
      { label: t("schedules.missed"), end: true, cell: (one) => (one.missed ? h("span", { class: "state wait" }, num(one.missed)) : h("span", { class: "dim" }, "–")) },
      role.rank >= 3 && { label: "", end: true, cell: (one) => buttons(one, role, () => made.reload()) },
    ].filter(Boolean), empty: () => nothing("schedules.none"),
  });
  return { element: h("div", head(t("schedules.title"), t("schedules.sub")), made.element), end: () => made.end() };
}

function one({ rest: id, role, go }) {
  const place = h("div", { class: "stack" });
  const load = () => get(`/v1/platform/schedules/${id}`).then((data) => fill(place, view(data))).catch((error) => fill(place, head(t("schedules.title")), trouble(error, load)));
  function view(data) {
    entitle(data.name, place);
    return [h("div", { class: "head" }, h("div", h("h1", ltr(data.name, { class: "" })), h("p", { class: "sub" }, ltr(data.cron), " · ", ltr(data.time_zone), " · ", standing(data))), h("div", { class: "do" }, buttons(data, role, load))),
    h("div", { class: "cols" },
      sheet(t("schedules.coming"), null, h("div", { class: "in" }, h("ol", data.next.map((at) => h("li", { class: "num" }, moment(at)))))),
      sheet(t("run.details"), null, h("div", { class: "in" }, pairs([[t("schedules.workflow"), ltr(data.workflow)], [t("schedules.catch_up"), word("catch_up", data.catch_up)], [t("schedules.overlap"), word("overlap", data.overlap)], [t("schedules.missed"), num(data.missed)]])))),
    sheet(t("schedules.last"), null, data.fires.length ? table([
      { label: t("run.at"), cell: (fire) => h("span", { class: "num" }, moment(fire.nominal_at)) },
      { label: t("schedules.decision"), cell: (fire) => word("decision", fire.decision) },
      { label: t("runs.state"), class: "two", cell: (fire) => [fire.run_state ? link(`runs/${fire.run_id}`, state(fire.run_state)) : h("span", { class: "dim" }, "–"), fire.error ? h("div", { class: "small dim" }, ltr(fire.error.code), " ", fire.error.message) : null] },
    ], data.fires, { open: (fire) => fire.run_id && go(`runs/${fire.run_id}`) }) : h("div", { class: "in dim" }, t("run.none")))];
  }
  load();
  return { element: place };
}
