// Tenants, for whoever runs the platform; and what one's own organisation has used.

import { get } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t, word } from "../i18n.js";
import { nothing, trouble } from "../parts/dialog.js";
import { pages, table } from "../parts/list.js";
import { head, link, sheet, state, when } from "../parts/show.js";

export default function tenants({ role, me, go }) {
  const usage = me.rights.includes("read") ? busy() : null;
  if (usage) {
    get("/v1/usage").then(({ totals, from, to }) => fill(usage, sheet(t("tenants.usage"), ltr(`${from} – ${to}`), Object.keys(totals).length ? table([
      { label: t("tenants.metric"), cell: ([name]) => word("metric", name) }, { label: t("tenants.amount"), end: true, cell: ([, n]) => num(n) },
    ], Object.entries(totals)) : h("div", { class: "in dim" }, t("run.none"))))).catch((error) => fill(usage, trouble(error)));
  }
  const made = role.wide ? pages({
    path: "/v1/platform/tenants", query: {}, key: (one) => one.id, label: t("tenants.title"), open: (one) => go(`runs?tenant_id=${one.id}`),
    columns: [
      { label: t("tenants.name"), cell: (one) => one.name }, { label: t("tenants.slug"), cell: (one) => ltr(one.slug) },
      { label: t("tenants.status"), class: "two", cell: (one) => [state(one.status), one.suspended_reason ? h("div", { class: "small dim" }, one.suspended_reason) : null] },
      { label: t("tenants.since"), end: true, cell: (one) => when(one.created_at) }, { label: t("tenants.runs"), end: true, cell: (one) => link(`runs?tenant_id=${one.id}`, t("failures.show")) },
    ], empty: () => nothing("tenants.none"),
  }) : null;
  return { element: h("div", head(t("tenants.title"), t("tenants.sub")), h("div", { class: "stack" }, made?.element, usage)), end: () => made?.end() };
}
