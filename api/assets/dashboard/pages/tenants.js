// Tenants, for whoever runs the platform; and what one of them, or one's own organisation, has used.

import { get, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t, word } from "../i18n.js";
import { ask, nothing, trouble } from "../parts/dialog.js";
import { field } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { head, link, pairs, sheet, state, when } from "../parts/show.js";

/** What may be agreed with a tenant; those with a window are rates. */
const LIMITS = ["caller_requests", "concurrent_renders", "render_weight", "renders_per_day", "requests", "seats", "storage_bytes"];
const RATES = new Set(["caller_requests", "requests"]);

export default function tenants(page) {
  return page.rest && page.role.wide ? one(page) : list(page);
}

function list({ role, me, go }) {
  const usage = me.rights.includes("read") ? used("/v1/usage", t("tenants.usage")) : null;
  const made = role.wide ? pages({
    path: "/v1/platform/tenants", query: {}, key: (one) => one.id, label: t("tenants.title"), open: (one) => go(`tenants/${one.id}`),
    columns: [
      { label: t("tenants.name"), cell: (one) => link(`tenants/${one.id}`, h("bdi", one.name)) }, { label: t("tenants.slug"), cell: (one) => ltr(one.slug) },
      { label: t("tenants.status"), class: "two", cell: (one) => [state(one.status), one.suspended_reason ? h("div", { class: "small dim" }, one.suspended_reason) : null] },
      { label: t("tenants.since"), end: true, cell: (one) => when(one.created_at) }, { label: t("tenants.runs"), end: true, cell: (one) => link(`runs?tenant_id=${one.id}`, t("failures.show")) },
    ], empty: () => nothing("tenants.none"),
  }) : null;
  return { element: h("div", head(t("tenants.title"), t("tenants.sub")), h("div", { class: "stack" }, made?.element, usage)), end: () => made?.end() };
}

/** What was used within the last 30 days. */
function used(path, title) {
  const place = busy();
  get(path).then(({ totals, from, to }) => fill(place, sheet(title, ltr(`${from} – ${to}`), Object.keys(totals).length ? table([
    { label: t("tenants.metric"), cell: ([name]) => word("metric", name) }, { label: t("tenants.amount"), end: true, cell: ([, n]) => num(n) },
  ], Object.entries(totals)) : h("div", { class: "in dim" }, t("run.none"))))).catch((error) => fill(place, trouble(error)));
  return place;
}

/** A tenant: what was agreed with it, what it used, and whether it may go on. */
function one({ rest: id, role }) {
  const place = busy({ class: "stack" });
  const path = `/v1/platform/tenants/${id}`;
  const usage = used(`${path}/usage`, t("tenants.used"));
  const suspend = () => ask({ title: t("tenants.suspend"), text: t("tenants.suspend.say"), danger: true, then: load,
    act: ({ reason: text }) => {
      const reason = text.trim();
      return write(same("tenant_suspend", { tenant: id, reason }), "POST", `${path}/suspend`, { reason });
    } });
  const resume = () => ask({ title: t("tenants.resume"), reason: "none", then: load, act: () => write(same("tenant_resume", { tenant: id }), "POST", `${path}/resume`) });
  function agree(name, now) {
    const zero = h("p", { class: "ask bad small", role: "alert", hidden: now?.hard !== 0 }, t("tenants.zero"));
    ask({ title: word("limit", name), text: t("tenants.agree.say"), reason: "none", danger: true, then: load,
      fields: [
        field("tenants.hard", h("input", { class: "i num", name: "hard", type: "number", min: 0, required: true, value: now?.hard ?? "", oninput: ({ target }) => { zero.hidden = target.valueAsNumber !== 0; } })), zero,
        field("tenants.soft", h("input", { class: "i num", name: "soft", type: "number", min: 0, value: now?.soft ?? "" })),
        RATES.has(name) ? field("tenants.window", h("input", { class: "i num", name: "window_seconds", type: "number", min: 1, max: 86400, value: now?.window_seconds ?? 60 })) : null,
      ],
      act: (values) => {
        const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()).map(([key, value]) => [key, Number(value)]));
        return write(same("tenant_limit", { hard: "", ...given, tenant: id, limit: name }), "PUT", `${path}/limits/${name}`, given);
      } });
  }
  const button = (words, then, tone) => h("button", { class: `b ${tone}`, type: "button", data: { act: words }, onclick: then }, t(words));
  function view(tenant) {
    const agreed = new Map(tenant.limits.map((limit) => [limit.name, limit]));
    const may = role.rank >= 3 && tenant.status !== "closed";
    return [
      head(h("bdi", tenant.name), [state(tenant.status), " · ", ltr(tenant.slug), tenant.suspended_reason ? [" · ", h("bdi", tenant.suspended_reason)] : null], link(`runs?tenant_id=${id}`, t("failures.show")),
        may && tenant.status === "suspended" ? button("tenants.resume", resume, "first") : null, may && tenant.status === "active" && tenant.kind !== "platform" ? button("tenants.suspend", suspend, "bad") : null),
      h("div", { class: "cols" },
        sheet(t("tenants.limits"), null, table([
          { label: t("tenants.metric"), cell: (name) => word("limit", name) },
          { label: t("tenants.hard"), end: true, cell: (name) => (agreed.has(name) ? num(agreed.get(name).hard) : h("span", { class: "dim" }, t("tenants.usual"))) },
          { label: t("tenants.soft"), end: true, cell: (name) => ((agreed.get(name)?.soft ?? null) === null ? "–" : num(agreed.get(name).soft)) },
          { label: t("tenants.window"), end: true, cell: (name) => (agreed.get(name)?.window_seconds ? num(agreed.get(name).window_seconds) : "–") },
          may && { label: "", end: true, cell: (name) => h("button", { class: "b tiny", type: "button", "aria-label": `${t("tenants.agree")}: ${word("limit", name)}`, data: { act: name }, onclick: () => agree(name, agreed.get(name)) }, t("tenants.agree")) },
        ].filter(Boolean), LIMITS)),
        usage,
        sheet(t("run.details"), null, h("div", { class: "in" }, pairs([[t("runs.tenant"), ltr(tenant.id)], [t("shell.language"), ltr(tenant.locale)], [t("notify.zone"), ltr(tenant.timezone)], [t("tenants.since"), when(tenant.created_at)]])))),
    ];
  }
  const load = () => get(path).then((tenant) => fill(place, view(tenant))).catch((error) => fill(place, head(t("tenants.title")), trouble(error, load)));
  load();
  return { element: place };
}
