// Bulk operations: a list, one with the outcome of each of its runs, and a new one: filter, preview, confirm, progress.

import { get, write } from "../api.js";
import { fill, h, ltr } from "../dom.js";
import { knows, latin, moment, num, t, word } from "../i18n.js";
import { ask, cli, done, nothing, trouble, undone } from "../parts/dialog.js";
import { choice, field } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { head, json, link, meter, pairs, sheet, short, state, when } from "../parts/show.js";

export default function bulk(page) {
  if (page.rest === "new") return fresh(page);
  return page.rest ? one(page) : list(page);
}

/** Goes to where an operation on all runs of a filter is made. */
export function act_on_many(go, action, filter) {
  go(`bulk/new?${new URLSearchParams({ ...(action ? { action } : {}), filter: JSON.stringify(filter) })}`);
}

function list({ go }) {
  const made = pages({
    path: "/v1/operate/bulk", query: {}, key: (one) => one.id, label: t("bulk.title"), open: (one) => go(`bulk/${one.id}`),
    columns: [
      { label: t("bulk.action"), cell: (one) => link(`bulk/${one.id}`, word("act", one.action)) },
      { label: t("bulk.state"), cell: (one) => state(one.state) },
      { label: t("bulk.progress"), cell: (one) => h("div", meter(one.turned, one.total), h("span", { class: "small dim num" }, `${num(one.turned)} / ${num(one.total)}`)) },
      { label: t("bulk.reason"), class: "clip", cell: (one) => one.reason },
      { label: t("bulk.by"), cell: (one) => short(one.actor) },
      { label: t("bulk.made"), end: true, cell: (one) => when(one.created_at) },
    ], empty: () => nothing("bulk.none", h("button", { class: "b", type: "button", onclick: () => go("runs") }, t("nav.runs"))),
  });
  return { element: h("div", head(t("bulk.title"), t("bulk.sub"), h("button", { class: "b", type: "button", onclick: () => made.reload() }, t("list.refresh"))), made.element), end: () => made.end() };
}

/** Whether the API does something to runs of a kind that is named: what it refuses has its reason among the messages. Films are ordered again. */
export const takes = (action, kind) => !knows(`left.${action}.${kind}`) || (action === "retry" && kind === "render_video");

/** States of runs that are tried again. */
const AGAIN = ["failed", "cancelled"];

/** What can be done to the runs of a filter: what failed or was cancelled is tried again, what is under way stops or goes sooner. */
function offers({ states = [], queue, dead, fingerprint, code }, role) {
  const over = dead || fingerprint || code || (states.length && !states.includes("running"));
  const again = !queue && (!states.length || states.some((one) => AGAIN.includes(one)));
  return [again && "retry", !over && "cancel", !over && role.rank >= 2 && "set_priority"].filter(Boolean);
}

function fresh({ query, go, role }) {
  let filter;
  // An address that somebody mistyped means nothing, least of all every run.
  try { filter = JSON.parse(query.filter); } catch { return { element: head(t("bulk.title"), t("bulk.none")) }; }
  const [could, kinds] = [offers(filter, role), [filter.kinds ?? []].flat()];
  const offered = could.filter((action) => kinds.every((kind) => takes(action, kind)));
  const refused = could.flatMap((action) => kinds.filter((kind) => !takes(action, kind)).map((kind) => h("p", t(`act.${action}`), " · ", ltr(kind), ": ", why_left(action, { kind }))));
  const wanted = offered.includes(query.action) ? query.action : offered[0];
  const below = h("div", { class: "stack" });
  const wrong = h("p", { class: "ask bad small", role: "alert", hidden: true });
  const form = h("form", { class: "in stack", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    wrong.hidden = true;
    try {
      if (!values.reason.trim()) throw new Error(t("act.reason.needed"));
      const [reason, priority] = [values.reason.trim(), values.action === "set_priority" ? Number(values.priority || 0) : null];
      const preview = await write(same("bulk_preview", { ...values, filter: JSON.stringify(filter), reason, priority }), "POST", "/v1/operate/bulk", { action: values.action, filter, reason,
        ...(values.rate ? { rate_per_second: Number(values.rate) } : {}), ...(priority === null ? {} : { priority }) });
      form.querySelectorAll("input, select, button").forEach((one) => { one.disabled = true; });
      fill(below, previewed(preview, values.action, go));
      below.querySelector("input")?.focus();
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = error.message;
    }
  } },
  field("bulk.what", choice("action", offered.map((name) => [name, t(`act.${name}`)]), wanted, (name) => { priority.hidden = name !== "set_priority"; })),
  field("act.reason", h("input", { class: "i", name: "reason", maxlength: 500, required: true, autocomplete: "off" }), "act.reason.hint"),
  field("bulk.rate", h("input", { class: "i num", name: "rate", type: "number", min: 0.001, step: "any" }), "bulk.rate.hint"), wrong,
  h("div", h("button", { class: "b first", type: "submit" }, t("bulk.preview"))));
  const priority = field("ask.priority", h("input", { class: "i num", name: "priority", type: "number" }));
  priority.hidden = wanted !== "set_priority";
  form.children[0].after(priority);
  return { element: h("div", { class: "stack" }, head(t("bulk.new"), t("bulk.sub")),
    h("div", { class: "cols" }, sheet(t("bulk.filter"), null, h("div", { class: "in" }, Object.keys(filter).length ? pairs(Object.entries(filter).map(asked)) : t("bulk.everything"))),
      sheet(t("bulk.what"), null, offered.length ? form : h("div", { class: "in" }, t("bulk.nothing")), refused.length ? h("div", { class: "in stack small dim" }, refused) : null)), below) };
}

/** A part of a filter: its name, and what is asked for. */
function asked([name, value]) {
  const at = Date.parse(value);
  if (name === "states") return [word("filter", name), [value].flat().map((one) => word("state", one)).join(", ")];
  if (name === "dead") return [word("filter", name), t(value ? "filter.yes" : "filter.no")];
  if (["from", "until"].includes(name) && at) return [word("filter", name), moment(value)];
  return [word("filter", name), ltr([value].flat().join(", "))];
}

/** Why runs of a kind are left out; what nobody has translated as the API says it. */
function why_left(action, { kind, why }) {
  const key = `left.${action}.${kind}`;
  return knows(key) ? t(key) : h("span", { dir: "auto" }, why);
}

/** How what was previewed is begun: by whoever has read how many runs it is about. */
const begun = (id, n) => write(same("bulk_begin", { bulk: id, n }), "POST", `/v1/operate/bulk/${id}/actions`, { action: "begin", confirm: n });
const typed = (n, input) => h("div", { class: "field" }, h("label", { for: "confirm" }, t("bulk.confirm", { n: String(n) })), Object.assign(input, { id: "confirm" }));

function previewed(preview, action, go) {
  const confirm = h("input", { class: "i num", inputmode: "numeric", autocomplete: "off", oninput: () => { begin.disabled = latin(confirm.value.trim()) !== String(preview.total); } });
  const wrong = h("p", { class: "ask bad small", role: "alert", hidden: true });
  const begin = h("button", { class: "b first", type: "button", disabled: true, data: { act: "begin" }, onclick: async () => {
    try {
      done(t("bulk.begin"), await begun(preview.id, preview.total));
      go(`bulk/${preview.id}`);
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = error.message;
    }
  } }, t("bulk.begin"));
  return [
    h("div", { class: "ask" }, h("div", { class: "grow" }, h("p", { class: "say" }, t("bulk.total", { n: preview.total })), h("p", { class: "small dim" }, t("bulk.total.say")))),
    h("div", { class: "cols" },
      sheet(t("bulk.counts"), null, table([
        { label: t("runs.kind"), cell: (one) => ltr(one.kind) }, { label: t("runs.state"), cell: (one) => state(one.state) }, { label: t("runs.tenant"), cell: (one) => short(one.tenant_id) },
        { label: t("failures.runs"), end: true, cell: (one) => num(one.n) },
      ], preview.counts)),
      preview.left_out.length ? sheet(t("bulk.left"), null, table([
        { label: t("runs.kind"), cell: (one) => ltr(one.kind) }, { label: t("bulk.note"), class: "two dim", cell: (one) => why_left(action, one) }, { label: t("failures.runs"), end: true, cell: (one) => num(one.n) },
      ], preview.left_out)) : null,
      sheet(t("bulk.sample"), null, table([
        { label: t("runs.kind"), cell: (run) => link(`runs/${run.id}`, ltr(run.kind)) }, { label: t("runs.error"), cell: (run) => ltr(run.error_code ?? "–") }, { label: t("runs.created"), end: true, cell: (run) => when(run.created_at) },
      ], preview.sample))),
    sheet(t("bulk.begin"), null, h("div", { class: "in stack" }, typed(preview.total, confirm), wrong, h("div", begin), h("h3", t("act.cli")), cli(preview.cli), cli(same("bulk_begin", { bulk: preview.id, n: preview.total })))),
  ];
}

function one({ rest: id, go, role, me, hear }) {
  const place = h("div", { class: "stack" });
  let timer = null, stopped = false, items = null, seen = "";
  const act = (action, reason) => write(same(`bulk_${action}`, { bulk: id, reason }), "POST", `/v1/operate/bulk/${id}/actions`, { action, ...(reason ? { reason } : {}) });
  // It ends for good, and somebody will want to know why half of it was done.
  const abort = () => ask({ title: t("bulk.abort"), text: t("bulk.abort.say"), danger: true, then: load, act: ({ reason }) => act("abort", reason.trim()) });
  const rest = (reason) => write(same("bulk_rest", { bulk: id, reason }), "POST", "/v1/operate/bulk", { action: "retry", rest_of: id, reason });
  const begin = (n) => {
    const confirm = h("input", { class: "i num", name: "confirm", inputmode: "numeric", autocomplete: "off" });
    ask({ title: t("bulk.begin"), text: t("bulk.total", { n }), reason: "none", fields: [typed(n, confirm)], then: load, act: () => begun(id, Number(latin(confirm.value))) });
  };
  async function load() {
    clearTimeout(timer);
    try {
      const data = await get(`/v1/operate/bulk/${id}`);
      if (stopped) return;
      if (seen !== JSON.stringify(data)) {
        seen = JSON.stringify(data);
        items?.end();
        items = list_of(id);
        fill(place, view(data));
      }
      if (data.state === "running") timer = setTimeout(load, 1000);
    } catch (error) { fill(place, head(t("bulk.title")), trouble(error, load)); }
  }
  function view(data) {
    const button = (name, words, tone = "") => h("button", { class: `b ${tone}`, type: "button", data: { act: name }, onclick: () => (name === "abort" ? abort() : act(name).then((answer) => { done(t(words), answer); load(); }, undone)) }, t(words));
    const left = data.failed + data.conflicts;
    // What those who run the platform do to a tenant is theirs.
    const may = role.rank >= 1 && (role.wide || data.actor === `user:${me.id}`);
    return [
      head(word("act", data.action), data.reason,
        may && data.state === "previewed" ? h("button", { class: "b first", type: "button", data: { act: "begin" }, onclick: () => begin(data.total) }, t("bulk.begin")) : null,
        may && data.state === "running" ? button("pause", "bulk.pause") : null, may && data.state === "paused" ? button("resume", "bulk.resume", "first") : null,
        may && ["running", "paused", "previewed"].includes(data.state) ? button("abort", "bulk.abort", "bad") : null,
        may && data.state === "finished" && left && data.action === "retry" ? h("button", { class: "b", type: "button", onclick: () => ask({ title: t("bulk.rest"), act: (values) => rest(values.reason), then: (made) => go(`bulk/${made.id}`) }) }, t("bulk.rest")) : null),
      h("div", { class: "sheet" }, h("div", { class: "in stack" }, h("div", state(data.state), " ", h("span", { class: "num dim" }, `${num(data.turned)} / ${num(data.total)}`)), meter(data.turned, data.total))),
      h("div", { class: "figures" }, [["done", data.done, ""], ["skipped", data.skipped, ""], ["conflict", data.conflicts, "wait"], ["failed", data.failed, "bad"]].map(([name, n, tone]) =>
        h("div", { class: "figure" }, h("div", { class: "of" }, t(`state.${name}`)), h("div", { class: `n ${n ? tone : ""}` }, num(n))))),
      sheet(t("run.details"), null, h("div", { class: "in" }, pairs([[t("bulk.by"), ltr(data.actor)], [t("bulk.made"), when(data.created_at)], [t("bulk.rate"), data.rate_per_second && num(data.rate_per_second, 2)], [t("bulk.filter"), json(data.filter)]]))),
      h("h2", t("bulk.items")), items.element,
    ];
  }
  const free = hear("deed", (deed) => { if (deed.target === `bulk:${id}`) load(); });
  load();
  return { element: place, end() { stopped = true; clearTimeout(timer); free(); items?.end(); } };
}

function list_of(id) {
  return pages({
    path: `/v1/operate/bulk/${id}/items`, query: {}, label: t("bulk.items"), columns: [
      { label: "#", end: true, cell: (item) => num(item.n) },
      { label: t("runs.id"), cell: (item) => link(`runs/${item.run_id}`, short(item.run_id)) },
      { label: t("bulk.outcome"), cell: (item) => (item.outcome ? state(item.outcome) : h("span", { class: "dim" }, "–")) },
      { label: t("bulk.newrun"), cell: (item) => (item.new_run_id ? link(`runs/${item.new_run_id}`, short(item.new_run_id)) : "") },
      { label: t("bulk.note"), class: "two dim", cell: (item) => item.note ?? "" },
    ], empty: () => nothing("run.none"),
  });
}
