// Nodes: the machines that render, how they fare, and what failed on them.

import { at, get, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { bytes, num, t, week, weekday, word } from "../i18n.js";
import { ask, cli, nothing, trouble } from "../parts/dialog.js";
import { field, tick } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { entitle, head, link, pairs, sheet, size, state, when } from "../parts/show.js";
import tokens from "./tokens.js";

const MB = 1048576;
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/** Most nodes that the map shows. */
const MAPPED = 1000;

export default function nodes(page) {
  if (page.rest === "tokens") return tokens(page);
  return page.rest ? one(page) : list(page);
}

function list({ go }) {
  const made = pages({
    path: "/v1/platform/nodes", query: {}, key: (node) => node.id, label: t("nodes.title"), open: (node) => go(`nodes/${node.id}`),
    columns: [
      { label: t("nodes.node"), class: "two", cell: (node) => [h("a", { href: `/dashboard/nodes/${node.id}` }, ltr(node.name)), h("div", { class: "small dim" }, ltr(node.pool)), tags(node.labels)] },
      { label: t("nodes.status"), class: "two", cell: (node) => [state(node.status), node.quarantine_reason ? h("div", { class: "small dim clip" }, node.quarantine_reason) : null] },
      { label: t("nodes.engine"), cell: (node) => h("span", { class: "tag" }, ltr(node.ae_version ? `After Effects ${node.ae_version}` : node.offers.engine ?? "–")) },
      { label: t("nodes.slots"), end: true, cell: (node) => num(node.slots) },
      { label: t("nodes.disk"), end: true, cell: (node) => (node.disk_free_mb === null ? "–" : size(node.disk_free_mb * MB)) },
      { label: t("nodes.cache"), end: true, cell: (node) => size(node.cache_bytes) },
      { label: t("nodes.crashes"), end: true, cell: (node) => (node.crashes ? h("span", { class: "state bad" }, num(node.crashes)) : h("span", { class: "dim" }, "–")) },
      { label: t("nodes.seen"), end: true, cell: (node) => when(node.last_seen_at) },
    ], empty: () => nothing("nodes.none"),
  });
  const map = busy(), look = () => mapped().then((all) => fill(map, map_of(all))).catch((error) => fill(map, trouble(error, look)));
  look();
  const timers = [setInterval(() => made.renew(), 10000), setInterval(look, 30000)];
  const refresh = () => { look(); made.reload(); };
  return {
    element: h("div", { class: "stack" }, head(t("nodes.title"), t("nodes.sub"), link("nodes/tokens", t("tokens.title")), h("button", { class: "b", type: "button", onclick: refresh }, t("list.refresh"))), map, made.element),
    end() { timers.forEach(clearInterval); made.end(); },
  };
}

/** Every node that there is to be seen at once. */
async function mapped() {
  const all = [];
  for (let from = null; ;) {
    const page = await get(at("/v1/platform/nodes", { limit: 100, starting_after: from }));
    all.push(...page.data);
    from = page.next_cursor;
    if (!page.has_more || all.length >= MAPPED) return all.filter((node) => node.status !== "retired");
  }
}

/** The farm at a glance: group by group, each node with its state. */
function map_of(all) {
  if (!all.length) return null;
  const groups = [...new Set(all.map((node) => node.pool))].sort();
  const of = (pool) => all.filter((node) => node.pool === pool).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  return sheet(t("nodes.map"), null, h("div", { class: "in stack" }, groups.map((pool) => h("div",
    h("h3", ltr(pool)), h("div", { class: "line" }, of(pool).map((node) => {
      const a = link(`nodes/${node.id}`, state(node.status, ltr(node.name)), h("span", { class: "unseen" }, ` ${word("state", node.status)}`));
      a.className = "b tiny";
      a.title = `${word("state", node.status)} · ${t("now.slots", { n: node.slots })}`;
      return a;
    }))))));
}

/** Labels, each as one. */
function tags(labels) {
  return h("div", Object.entries(labels).map(([name, value]) => [h("span", { class: "tag" }, ltr(`${name}=${value}`)), " "]));
}

function one({ rest: id, role }) {
  const place = h("div", { class: "stack" });
  const path = `/v1/platform/nodes/${id}`;
  const act = (node, action, given) => write(same(`node_${action}`, { node: node.name, ...given }), "POST", `${path}/actions`, { action, ...given });
  const load = () => Promise.all([get(path), get(at(`${path}/health`, { limit: 100 })), get(at(`${path}/crashes`, { limit: 20 }))])
    .then(([node, health, crashes]) => fill(place, view(node, health.data.reverse(), crashes.data))).catch((error) => fill(place, head(t("nodes.title")), trouble(error, load)));
  /** What is done with a package of its cache: nothing is lost by it that is not fetched again. */
  function packaged(node, { package: hash, keep }) {
    const button = (action, words) => h("button", { class: "b tiny", type: "button", "aria-label": `${t(words)}: ${hash.slice(0, 16)}`, data: { act: action }, onclick: () => ask({ title: `${t(words)}: ${hash.slice(0, 16)}`, reason: "none", then: load,
      act: () => act(node, action, { package: hash }) }) }, t(words));
    return h("div", { class: "line" }, keep ? button("let_go", "nodes.let_go") : button("keep", "nodes.keep"), button("evict", "nodes.evict"));
  }
  /** When it sleeps, as whoever owns the machine wants it: each question begins with what is so. */
  const sleep = (node) => ({ title: t("nodes.ask.sleep", { name: node.name }), text: t("nodes.ask.sleep.say"), reason: "none", get fields() { return hours(node.sleep); },
    act: ({ from, to, tz, at_once: now, ...values }) => {
      const schedule = { days: DAYS.filter((day) => values[day]), from, to, tz: tz.trim(), at_once: now === "on" };
      return write(same("node_sleep", { node: node.name, ...schedule, days: schedule.days.join(",") }), "POST", `${path}/actions`, { action: "sleep", schedule });
    } });
  function view(node, health, crashes) {
    entitle(node.name, place);
    const button = (words, question, tone = "") => h("button", { class: `b ${tone}`, type: "button", data: { act: words }, onclick: () => ask({ then: load, ...question }) }, t(words));
    return [
      h("div", { class: "head" }, h("div", h("h1", ltr(node.name, { class: "" })), h("p", { class: "sub" }, state(node.status), " · ", ltr(node.pool), " · ", when(node.last_seen_at))), role.rank >= 3 ? h("div", { class: "do" },
        node.status === "draining" ? button("nodes.resume", { title: t("nodes.resume"), reason: "none", act: () => act(node, "resume") }, "first") : null,
        node.status === "online" ? button("nodes.drain", { title: t("nodes.ask.drain", { name: node.name }), text: t("nodes.ask.drain.say"), reason: "none", act: () => act(node, "drain") }) : null,
        node.status === "quarantined" ? button("nodes.release", { title: t("nodes.release"), reason: "none", act: () => act(node, "release") }, "first") : null,
        !["quarantined", "retired"].includes(node.status) ? button("nodes.quarantine", { title: t("nodes.ask.quarantine", { name: node.name }), text: t("nodes.ask.quarantine.say"), danger: true, act: ({ reason }) => act(node, "quarantine", { reason: reason.trim() }) }, "bad") : null) : null),
      node.quarantine_reason ? h("div", { class: "ask bad" }, h("p", { class: "say" }, node.quarantine_reason)) : null,
      h("div", { class: "cols" },
        sheet(t("nodes.health"), null, h("div", { class: "in stack" },
          line(t("nodes.cpu"), health.map((one) => one.cpu_percent), (n) => `${num(n)} %`), line(t("nodes.tasks"), health.map((one) => one.running_tasks), (n) => num(n)),
          line(t("nodes.disk"), health.map((one) => one.disk_free_mb), (n) => bytes(n * MB)))),
        sheet(t("nodes.machine"), null, h("div", { class: "in stack" }, pairs([
          [t("nodes.version"), node.agent_version && ltr(node.agent_version)], [t("nodes.engine"), ltr(node.ae_version ? `After Effects ${node.ae_version}` : node.offers.engine ?? "–")], ["OS", node.os && ltr(node.os)], ["CPU", node.cpu && num(node.cpu)],
          ["RAM", node.ram_mb && size(node.ram_mb * MB)], ["GPU", node.gpu && ltr(node.gpu)], [t("nodes.slots"), num(node.slots)], [t("nodes.fonts"), node.fonts !== null ? num(node.fonts) : null],
          [t("nodes.cache"), [size(node.cache_bytes), node.cache_limit === null ? null : [" / ", size(node.cache_limit)]]], [t("tokens.labels"), Object.keys(node.labels).length ? tags(node.labels) : null],
          [t("nodes.sleeps"), node.sleep && [slept(node.sleep).map(weekday).join(", "), " ", ltr(`${node.sleep.from}–${node.sleep.to} ${node.sleep.tz}`)]], [t("nodes.blocks"), node.blocks ? num(node.blocks) : null],
          [t("runs.tenant"), node.tenant_id && link(`runs?tenant_id=${node.tenant_id}`, ltr(node.tenant_id))],
        ]), role.rank >= 3 && node.status !== "retired" ? h("div", { class: "line" },
          button("nodes.sleep", sleep(node)), node.sleep ? button("nodes.wake", { title: t("nodes.wake"), reason: "none", act: () => act(node, "wake") }) : null,
          button("nodes.rotate", { title: t("nodes.rotate"), text: t("nodes.rotate.say"), reason: "none", act: () => act(node, "rotate_credential") }),
          button("nodes.retire", { title: t("nodes.ask.retire", { name: node.name }), text: t("nodes.ask.retire.say"), danger: true, act: ({ reason }) => act(node, "retire", { reason: reason.trim() }) }, "bad")) : null))),
      sheet(t("nodes.doctor"), node.probe ? [state(node.probe.passed ? "ok" : "failed"), " ", when(node.probe.at)] : null, node.probe ? table([
        { label: t("nodes.check"), cell: (one) => ltr(one.name) },
        { label: t("run.result"), cell: (one) => state(one.ok ? "ok" : "failed") },
        { label: t("nodes.found"), class: "two", cell: (one) => [h("div", { dir: "auto" }, one.found), one.fix ? h("div", { class: "small dim", dir: "auto" }, one.fix) : null] },
      ], node.probe.checks) : h("div", { class: "in dim" }, t("nodes.noprobe")), h("div", { class: "in stack" }, h("p", { class: "small dim" }, t("nodes.doctor.say")), cli(same("node_doctor")))),
      sheet(t("nodes.packages"), num(node.packages.length), node.packages.length ? table([
        { label: t("nodes.package"), cell: (one) => ltr(one.package.slice(0, 16), { title: one.package, class: "mono" }) },
        { label: t("nodes.bytes"), end: true, cell: (one) => size(one.bytes) },
        { label: t("nodes.hits"), end: true, cell: (one) => num(one.hits) },
        { label: t("nodes.used"), end: true, cell: (one) => when(one.last_used_at) },
        { label: t("runs.state"), cell: (one) => (one.keep ? h("span", { class: "tag run" }, t("nodes.kept")) : one.state === "evicting" ? h("span", { class: "tag wait" }, t("nodes.evicting")) : "") },
        role.rank >= 3 && node.status !== "retired" && { label: "", end: true, cell: (one) => (one.state === "evicting" ? null : packaged(node, one)) },
      ].filter(Boolean), node.packages) : h("div", { class: "in dim" }, t("nodes.nopackage"))),
      sheet(t("nodes.crashlog"), null, crashes.length ? table([
        { label: t("runs.error"), class: "two", cell: (crash) => [ltr(crash.code), h("div", { class: "small dim" }, word("crash", crash.kind), " ", ltr(crash.signature.slice(0, 12)), crash.seen > 1 ? ` ×${num(crash.seen)}` : "")] },
        { label: t("run.evidence"), class: "two", cell: (crash) => (crash.log_tail ? h("details", h("summary", t("run.evidence")), h("pre", { class: "json", tabindex: 0 }, crash.log_tail)) : "") },
        { label: t("run.result"), cell: (crash) => word("recovery", crash.recovery) },
        { label: t("run.at"), end: true, cell: (crash) => when(crash.occurred_at) },
      ], crashes) : h("div", { class: "in dim" }, t("nodes.nocrash"))),
    ];
  }
  load();
  const timer = setInterval(load, 15000);
  return { element: place, end: () => clearInterval(timer) };
}

/** Days on which a node falls asleep, as the week goes. */
function slept(sleep) {
  const days = sleep.days.map((day) => day.toLowerCase());
  return week().filter((n) => days.includes(DAYS[n]));
}

/** Fields for when a node sleeps; every night when nobody has said so yet. */
function hours(sleep) {
  const on = sleep ? slept(sleep) : week();
  const time = (name, value) => h("input", { class: "i num", name, type: "time", dir: "ltr", required: true, value });
  return [
    h("div", { class: "field", role: "group", "aria-label": t("nodes.days") }, h("span", { class: "label" }, t("nodes.days")),
      h("div", { class: "line" }, week().map((n) => h("label", { class: "line small" }, h("input", { type: "checkbox", name: DAYS[n], checked: on.includes(n) }), weekday(n))))),
    field("nodes.asleep", time("from", sleep?.from ?? "20:00")), field("nodes.awake", time("to", sleep?.to ?? "08:00")),
    field("notify.zone", h("input", { class: "i mono", name: "tz", dir: "ltr", required: true, autocomplete: "off", value: sleep?.tz ?? Intl.DateTimeFormat().resolvedOptions().timeZone })),
    tick("nodes.at_once", "at_once", sleep?.at_once),
  ];
}

/** A line of small bars with its newest value in words. */
function line(name, values, words) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (!known.length) return null;
  const most = Math.max(1, ...known);
  return h("div", h("div", { class: "small dim" }, name, " ", h("strong", { class: "num" }, h("bdi", words(known.at(-1))))),
    h("div", { class: "bars", role: "img", "aria-label": t("nodes.graph", { what: name, value: words(known.at(-1)) }), at: { "block-size": "2.5rem" } }, known.slice(-60).map((value) => h("div", { class: "bar", at: { "block-size": `${Math.max(3, (value / most) * 100)}%` } }))));
}
