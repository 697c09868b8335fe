// Dead letters: what failed for good and waits for somebody to decide.

import { h } from "../dom.js";
import { t } from "../i18n.js";
import { narrow } from "../parts/list.js";
import { head } from "../parts/show.js";
import { act_on_many } from "./bulk.js";
import { bulk_filter, runs_list } from "./runs.js";

export default function dead(page) {
  const list = runs_list(page, page.query, "/v1/operate/dead-letters", Object.keys(page.query).length ? "runs.none" : "dead.none");
  const { text, clear } = narrow(page, "dead");
  return {
    element: h("div", head(t("dead.title"), t("dead.sub"),
      h("button", { class: "b", type: "button", onclick: () => list.reload() }, t("list.refresh")),
      page.role.rank >= 1 ? h("button", { class: "b", type: "button", onclick: () => act_on_many(page.go, "retry", { ...bulk_filter(page.query), states: ["failed"], dead: true }) }, t("failures.retry")) : null),
      h("div", { class: "filters", role: "search", "aria-label": t("list.filter") }, text("kind", t("runs.kind"), { first: true, wide: true }), text("code", t("runs.code")), text("business_key", t("runs.key")),
        page.role.wide ? text("tenant_id", t("runs.tenant")) : null, clear()), list.element),
    end: () => list.end(),
  };
}
