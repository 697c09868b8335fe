// What was done, by whom and why: to runs and queues, of which more is known; and everything that anybody did in one's organisation.

import { h, ltr } from "../dom.js";
import { t, word } from "../i18n.js";
import { nothing } from "../parts/dialog.js";
import { pick } from "../parts/form.js";
import { narrow, pages, table } from "../parts/list.js";
import { head, json, link, when } from "../parts/show.js";

const ROOMS = { run: "runs", bulk: "bulk", node: "nodes", schedule: "schedules", payment: "payments", webhook: "webhooks" };

function target(text) {
  const [kind, id] = [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 1)];
  if (kind === "queue") return link("queues", ltr(text));
  return ROOMS[kind] ? link(`${ROOMS[kind]}/${id}`, ltr(`${kind}:…${id.slice(-12)}`, { title: id })) : ltr(text);
}

const COLUMNS = [
  { label: () => t("audit.what"), cell: (deed) => word("deed", deed.action) },
  { label: () => t("audit.to"), cell: (deed) => target(deed.target) },
  { label: () => t("audit.who"), cell: (deed) => h("span", { title: deed.actor }, ltr(deed.actor.length > 24 ? `${deed.actor.split(":")[0]}:…${deed.actor.slice(-8)}` : deed.actor)) },
  { label: () => t("audit.why"), class: "two", cell: (deed) => (deed.reason ? h("div", { dir: "auto" }, deed.reason) : null) ?? h("span", { class: "dim" }, "–") },
  { label: () => t("audit.change"), class: "two", cell: (deed) => (deed.before || deed.after ? h("details", h("summary", t("audit.change")), json({ before: deed.before, after: deed.after })) : "") },
  { label: () => t("audit.when"), end: true, cell: (deed) => when(deed.at) },
];
const columns = () => COLUMNS.map((column) => ({ ...column, label: column.label() }));

/** The chain of one's organisation: every deed of everybody, those above among them. */
const CHAIN = [
  { label: () => t("audit.what"), cell: (entry) => ltr(entry.action) },
  { label: () => t("audit.to"), cell: (entry) => target(entry.target) },
  ...COLUMNS.slice(2, 4),
  { label: () => t("audit.from"), cell: (entry) => (entry.ip ? ltr(entry.ip) : h("span", { class: "dim" }, "–")) },
  COLUMNS.at(-1),
];

/** A table of deeds. */
export function deeds(data) { return table(columns(), data); }

export default function audit(page) {
  return page.query.of === "all" ? chain(page) : of_runs(page);
}

const which = ({ query, go, me }) => (me.rights.includes("manage")
  ? pick(t("audit.of"), [["runs", t("audit.of.runs")], ["all", t("audit.of.all")]], query.of === "all" ? "all" : "runs", (name) => go(name === "all" ? "audit?of=all" : "audit")) : null);

function chain(page) {
  const { query, go } = page;
  const made = pages({ path: "/v1/audit", query: { action: query.action }, columns: CHAIN.map((column) => ({ ...column, label: column.label() })), key: (entry) => String(entry.seq), label: t("audit.title"), empty: () => nothing("audit.none") });
  const action = h("input", { class: "i mono", dir: "ltr", value: query.action ?? "", placeholder: "node.drain", "aria-label": t("audit.what"), "data-find": "", onchange: (event) => {
    const wanted = event.target.value.trim();
    go(`audit?of=all${wanted ? `&action=${encodeURIComponent(wanted)}` : ""}`, true);
  } });
  return { element: h("div", head(t("audit.title"), t("audit.all.sub"), h("button", { class: "b", type: "button", onclick: () => made.reload() }, t("list.refresh"))),
    h("div", { class: "filters", role: "search" }, which(page), action), made.element), end: () => made.end() };
}

function of_runs(page) {
  const { query, hear } = page;
  const made = pages({ path: "/v1/operate/audit", query, columns: columns(), key: (deed) => deed.id, label: t("audit.title"), empty: () => nothing("audit.none") });
  const { text, clear } = narrow(page, "audit");
  const free = hear("deed", () => made.renew());
  return { element: h("div", head(t("audit.title"), t("audit.sub")), h("div", { class: "filters", role: "search" }, which(page), text("target", t("audit.target"), { first: true }), text("action", t("audit.what")), text("actor", t("audit.who")),
    clear()), made.element), end() { free(); made.end(); } };
}
