// What a run did with its time: a lane for each step, a bar for each thing it did or waited for.

import { h, ltr } from "../dom.js";
import { between, span, t, word } from "../i18n.js";

/** Most lanes that are drawn: the run's own, what is under way, the first ones and the last. */
const LANES = 60;
/** Most of them that are drawn because they are under way. */
const OPEN = 30;
/** Most bars that come with a run (`NEWEST` of the engine's timeline): with so many, some may have stayed behind. */
const BARS = 1000;
const KINDS = [["queued", "--bar-queue"], ["working", "--bar-work"], ["step", "--bar-step"], ["paused", "--bar-pause"], ["sleeping", "--bar-sleep"], ["signal", "--bar-signal"], ["child", "--bar-child"], ["parked", "--bar-park"], ["failed", "--bar-bad"]];
const BAD = new Set(["failed", "lost", "timeout"]);

/** The chart of a run. */
export function gantt(run) {
  const begin = new Date(run.created_at).getTime();
  const end = Math.max(begin + 1, run.finished_at ? new Date(run.finished_at).getTime() : Date.now());
  const lanes = new Map();
  for (const one of run.timeline) {
    if (!lanes.has(one.key)) lanes.set(one.key, []);
    lanes.get(one.key).push(one);
  }
  let keys = [...lanes.keys()];
  const left_out = keys.length - LANES;
  if (left_out > 0) {
    const open = keys.filter((key) => lanes.get(key).some((one) => !one.until)).slice(-OPEN);
    const drawn = new Set(["", ...open, ...keys.slice(-10)]);
    for (const key of keys) if (drawn.size < LANES) drawn.add(key);
    keys = keys.filter((key) => drawn.has(key));
  }
  if (!keys.length) return h("p", { class: "dim" }, t("run.none"));
  const occurs = new Set(run.timeline.map((one) => (BAD.has(one.outcome) ? "failed" : one.doing)));
  const place = (time) => Math.max(0, Math.min(100, ((time - begin) / (end - begin)) * 100));
  return h("div", { class: "stack" }, h("div", { class: "gantt", role: "list", "aria-label": t("run.timeline") }, keys.map((key) => {
    const all = lanes.get(key);
    const attempts = Math.max(...all.map((one) => one.attempt_no));
    const at_work = all.filter((one) => one.doing === "working" || one.doing === "step");
    const worked = (at_work.length ? at_work : all).reduce((sum, one) => sum + (new Date(one.until ?? end) - new Date(one.from)), 0);
    return [
      h("div", { class: "clip", role: "listitem", title: key }, key ? ltr(key) : h("span", { class: "dim" }, t("run.itself")), attempts > 1 ? h("span", { class: "tag wait" }, `×${attempts}`) : null),
      h("div", { class: "lane", "aria-hidden": "true" }, all.map((one) => {
        const from = place(new Date(one.from).getTime()), until = place(one.until ? new Date(one.until).getTime() : end);
        const words = [t(`doing.${one.doing}`), one.worker, word("state", one.outcome), between(one.from, one.until)].filter(Boolean).join(" · ");
        return h("div", { class: `span ${one.doing} ${one.outcome ?? ""}${one.until ? "" : " open"}`, title: words, at: { "left": `${from}%`, "width": `${until - from}%` } });
      })),
      h("div", { class: "num dim end" }, span(worked / 1000)),
    ];
  })), h("div", { class: "legend" }, KINDS.filter(([name]) => occurs.has(name)).map(([name, colour]) => h("span", h("i", { at: { background: `var(${colour})` } }), t(`doing.${name}`)))),
  left_out > 0 || run.timeline.length >= BARS ? h("p", { class: "small dim" }, t("run.part")) : null);
}
