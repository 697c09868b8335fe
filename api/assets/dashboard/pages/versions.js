// Versions of definitions that are under way, and the workers that live.

import { get } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t } from "../i18n.js";
import { nothing, trouble } from "../parts/dialog.js";
import { table } from "../parts/list.js";
import { head, link, sheet, state, when } from "../parts/show.js";

export default function versions() {
  const place = busy({ class: "stack" });
  const load = () => get("/v1/operate/versions").then((data) => fill(place,
    h("div", { class: "sheet" }, data.versions.length ? table([
      { label: t("versions.name"), cell: (one) => link(`runs?kind=${one.name.replace(/\.v\d+$/, "")}&state=running`, ltr(one.name)) },
      { label: t("versions.live"), end: true, cell: (one) => num(one.live) },
      { label: t("versions.parked"), end: true, cell: (one) => (one.parked ? h("span", { class: "state wait" }, num(one.parked)) : h("span", { class: "dim" }, "–")) },
      { label: t("versions.oldest"), end: true, cell: (one) => when(one.oldest_at) },
      { label: t("versions.workers"), end: true, cell: (one) => num(one.workers) },
      { label: t("versions.standing"), cell: (one) => state(one.standing) },
    ], data.versions, { label: t("versions.title") }) : nothing("versions.none")),
    sheet(t("workers.title"), null, data.workers.length ? table([
      { label: t("workers.worker"), cell: (one) => ltr(one.worker) }, { label: t("workers.queue"), cell: (one) => ltr(one.queue) }, { label: t("workers.knows"), end: true, cell: (one) => num(one.knows) },
      { label: t("workers.busy"), end: true, cell: (one) => `${num(one.busy)} / ${num(one.slots)}` }, { label: t("workers.since"), end: true, cell: (one) => when(one.started_at) },
    ], data.workers) : nothing("workers.none")))).catch((error) => fill(place, trouble(error, load)));
  load();
  return { element: h("div", head(t("versions.title"), `${t("versions.sub")} ${t("versions.live.say")}`, h("button", { class: "b", type: "button", onclick: load }, t("list.refresh"))), place) };
}
