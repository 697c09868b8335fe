// Tokens by which machines become nodes: made, and shown once; listed; revoked.

import { write } from "../api.js";
import { h, ltr } from "../dom.js";
import { t } from "../i18n.js";
import { ask, box, cli, nothing } from "../parts/dialog.js";
import { field, tick } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages } from "../parts/list.js";
import { head, link, state, when } from "../parts/show.js";

const PATH = "/v1/platform/nodes/tokens";

export default function tokens({ role }) {
  const may = role.rank >= 3;
  const made = pages({
    path: PATH, query: {}, key: (one) => one.id, label: t("tokens.title"),
    columns: [
      { label: t("nodes.status"), cell: (one) => state(one.state) },
      { label: t("tokens.pool"), class: "two", cell: (one) => [ltr(one.pool), h("div", Object.entries(one.labels).map(([name, value]) => [h("span", { class: "tag" }, ltr(`${name}=${value}`)), " "]))] },
      { label: t("tokens.probe"), cell: (one) => t(one.probe_first ? "tokens.first" : "tokens.atonce") },
      { label: t("tokens.made"), class: "two", cell: (one) => [when(one.created_at), one.created_by ? h("div", { class: "small dim", title: one.created_by }, ltr(one.created_by.length > 24 ? `${one.created_by.split(":")[0]}:…${one.created_by.slice(-8)}` : one.created_by)) : null] },
      { label: t("tokens.until"), end: true, cell: (one) => when(one.expires_at) },
      { label: t("nodes.node"), cell: (one) => (one.node_id ? link(`nodes/${one.node_id}`, ltr(one.node ?? one.node_id)) : h("span", { class: "dim" }, "–")) },
      may && { label: "", end: true, cell: (one) => (one.state === "open" ? h("button", { class: "b tiny bad", type: "button", onclick: () => revoke(one, () => made.reload()) }, t("tokens.revoke")) : null) },
    ].filter(Boolean), empty: () => nothing("tokens.none"),
  });
  return {
    element: h("div", head(t("tokens.title"), t("tokens.sub"), link("nodes", t("nodes.title")),
      may ? h("button", { class: "b first", type: "button", data: { act: "make" }, onclick: () => make(() => made.reload()) }, t("tokens.make")) : null), made.element),
    end: () => made.end(),
  };
}

function make(then) {
  ask({
    title: t("tokens.make"), text: t("tokens.make.say"), reason: "none",
    fields: [
      field("tokens.pool", h("input", { class: "i mono", name: "pool", dir: "ltr", value: "default", maxlength: 64, autocomplete: "off" })),
      field("tokens.labels", h("textarea", { class: "i mono", name: "labels", dir: "ltr", spellcheck: "false" }), "tokens.labels.hint"),
      field("tokens.minutes", h("input", { class: "i num", name: "minutes", type: "number", min: 1, max: 10080, value: 60, required: true })),
      tick("tokens.probe.ask", "probe", true),
    ],
    act: (values) => {
      const asked = { pool: values.pool.trim() || "default", labels: labels(values.labels), expires_in_seconds: Math.round(Number(values.minutes) * 60), probe_first: values.probe === "on" };
      const { pool, labels: all, probe_first: probe } = asked;
      const line = same("token_make", { pool, labels: Object.entries(all).map((pair) => pair.join("=")), minutes: Math.ceil(asked.expires_in_seconds / 60), without_probe: !probe });
      // It is shown once, beside the token.
      return write(line, "POST", PATH, asked).then(({ token }) => ({ token, line }));
    },
    then: ({ token, line }) => {
      then();
      box(t("tokens.once"), [
        h("p", { class: "dim" }, t("tokens.once.say")), cli(token),
        h("h3", t("tokens.machine")), cli(same("node_begin", { server: location.origin, token })),
        h("h3", t("act.cli")), cli(line),
      ]);
    },
  });
}

function revoke(one, then) {
  ask({ title: t("tokens.revoke"), text: t("tokens.revoke.say"), reason: "none", danger: true, then,
    act: () => write(same("token_revoke", { token: one.id }), "DELETE", `${PATH}/${one.id}`) });
}

/** Labels out of lines such as `gpu=rtx`. */
function labels(text) {
  const all = text.split("\n").map((one) => one.trim()).filter(Boolean);
  const odd = all.find((one) => one.indexOf("=") < 1);
  if (odd) throw new Error(t("tokens.labels.odd", { line: odd }));
  return Object.fromEntries(all.map((one) => [one.slice(0, one.indexOf("=")).trim(), one.slice(one.indexOf("=") + 1).trim()]));
}
