// Runs: a list whose address is the view, and one run.

import { fill, h, ltr } from "../dom.js";
import { between, t, word } from "../i18n.js";
import { nothing } from "../parts/dialog.js";
import { choice, pick } from "../parts/form.js";
import { narrow, pages } from "../parts/list.js";
import { head, link, short, state, when } from "../parts/show.js";
import { act_on_many } from "./bulk.js";
import one_run from "./run.js";

const RUNS = "/v1/operate/runs";
const STATES = ["running", "failed", "succeeded", "cancelled"];
const SINCE = { "1h": 3600, "24h": 86400, "7d": 604800 };

export default function runs(page) {
  return page.rest ? one_run(page) : list(page);
}

/** The runs that fit, as a list that loads itself. */
export function runs_list({ go, role }, query, path = RUNS, empty = "runs.none") {
  return pages({
    path, query, key: (run) => run.id, label: t("runs.title"), open: (run) => go(`runs/${run.id}`),
    columns: [
      { label: t("runs.kind"), class: "two", cell: (run) => [h("div", link(`runs/${run.id}`, ltr(run.kind))), h("div", { class: "small dim" }, run.business_key ? ltr(run.business_key) : short(run.id))] },
      { label: t("runs.state"), cell: (run) => state(run.state) },
      { label: t("runs.error"), class: "two", cell: (run) => (run.error_code ? [h("div", ltr(run.error_code)), h("div", { class: "small dim clip", dir: "auto", title: run.error_message }, run.error_message)] : h("span", { class: "dim" }, "–")) },
      role.wide && { label: t("runs.tenant"), cell: (run) => short(run.tenant_id) },
      { label: t("runs.created"), end: true, cell: (run) => when(run.created_at) },
      { label: t("runs.took"), end: true, cell: (run) => between(run.created_at, run.finished_at) },
    ].filter(Boolean),
    empty: () => nothing(empty, Object.keys(query).length > 0 && path === RUNS ? h("button", { class: "b", type: "button", onclick: () => go("runs") }, t("runs.clear")) : null),
  });
}

/** What the address asks for, as the API wants it. */
function asked(query) {
  const { since, ...rest } = query;
  return since && SINCE[since] ? { ...rest, from: new Date(Date.now() - SINCE[since] * 1000).toISOString() } : rest;
}

function list(page) {
  const { query, go, role, hear } = page;
  const place = h("div");
  const { set, text, clear } = narrow(page, "runs");
  const made = runs_list(page, asked(query));
  const fresh = h("button", { class: "b", type: "button", data: { act: "refresh" }, onclick: () => made.reload() }, t("list.refresh"));
  fill(place,
    head(t("runs.title"), t("runs.sub"), fresh, role.rank >= 1 && Object.keys(query).length ? h("button", { class: "b", type: "button", onclick: () => act_on_many(go, null, bulk_filter(asked(query))) }, t("runs.bulk")) : null),
    h("div", { class: "filters", role: "search", "aria-label": t("list.filter") },
      pick(t("runs.state"), [["", t("runs.any")], ...STATES.map((name) => [name, word("state", name)])], query.state ?? "", (state) => set({ state })),
      choice("since", [["", t("runs.from")], ...Object.keys(SINCE).map((name) => [name, t(`runs.${name}`)])], query.since ?? "", (since) => set({ since }), t("runs.from")),
      text("kind", t("runs.kind"), { first: true, wide: true }), text("code", t("runs.code")), text("queue", t("runs.queue")), text("business_key", t("runs.key")),
      role.wide ? text("tenant_id", t("runs.tenant")) : null, clear()),
    made.element);
  let due = null;
  const free = hear("now", () => {
    clearTimeout(due);
    due = setTimeout(() => made.renew(), 300);
  });
  return { element: place, end() { clearTimeout(due); free(); made.end(); } };
}

/** A filter of the list as bulk operations want it. */
export function bulk_filter(query) {
  const parts = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);
  const { state: states, kind, ...rest } = query;
  return { ...rest, ...(states ? { states: parts(states) } : {}), ...(kind ? { kinds: parts(kind) } : {}) };
}
