// Where one's organisation hears of what happened, what was sent there, and sending it again.

import { get, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { moment, num, t, word } from "../i18n.js";
import { ask, done, nothing, trouble, undone } from "../parts/dialog.js";
import { pick } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table, walk } from "../parts/list.js";
import { head, link, state, when } from "../parts/show.js";

/** States of deliveries, and of those the ones of which all can be sent again: what has not arrived. */
const STATES = ["pending", "delivered", "failed", "missed", "cancelled"], AGAIN = new Set(["failed", "missed"]);

export default function webhooks(page) {
  return page.rest ? one(page) : list(page);
}

function list({ go }) {
  const place = busy();
  const free = walk(place, (hook) => go(`webhooks/${hook.id}`));
  const load = () => get("/v1/webhooks").then(({ data }) => fill(place, h("div", { class: "sheet" }, data.length ? table([
    { label: t("webhooks.url"), cell: (hook) => link(`webhooks/${hook.id}`, ltr(hook.url)) },
    { label: t("webhooks.state"), class: "two", cell: (hook) => [state(hook.state), hook.disabled_reason ? h("div", { class: "small dim" }, hook.disabled_reason) : null] },
    { label: t("webhooks.event"), cell: (hook) => (hook.events.length ? hook.events.slice(0, 3).map((name) => [h("span", { class: "tag" }, ltr(name)), " "]) : t("runs.any")) },
    { label: t("state.failed"), end: true, cell: (hook) => num(hook.consecutive_failures) },
  ], data, { open: (hook) => go(`webhooks/${hook.id}`) }) : nothing("webhooks.none")))).catch((error) => fill(place, trouble(error, load)));
  load();
  return { element: h("div", head(t("webhooks.title"), t("webhooks.sub")), place), end: free };
}

function one({ rest: id, query, go }) {
  const path = `/v1/webhooks/${id}`;
  const send = (at, line) => async () => {
    try {
      done(t("webhooks.sent"), await write(line, "POST", `${path}${at}`));
      made.reload();
    } catch (error) { undone(error); }
  };
  const made = pages({
    path: `${path}/deliveries`, query, label: t("webhooks.deliveries"), key: (one) => one.id,
    columns: [
      { label: t("webhooks.event"), cell: (one) => ltr(one.event_type) }, { label: t("webhooks.state"), cell: (one) => state(one.state) },
      { label: t("webhooks.status"), class: "two", cell: (one) => [ltr(one.last_status ?? one.last_error ?? "–"), one.response_excerpt ? h("div", { class: "small dim clip" }, one.response_excerpt) : null] },
      { label: t("webhooks.attempts"), end: true, cell: (one) => num(one.attempts.length) }, { label: t("webhooks.when"), end: true, cell: (one) => when(one.occurred_at) },
      { label: "", end: true, cell: (one) => (one.state === "pending" ? null : h("button", { class: "b tiny", type: "button", "aria-label": `${t("webhooks.replay")}: ${one.event_type}, ${moment(one.occurred_at)}`, onclick: send(`/deliveries/${one.id}/replay`, same("delivery_replay", { webhook: id, delivery: one.id })) }, t("webhooks.replay"))) },
    ], empty: () => nothing(query.state ? "webhooks.nosuch" : "webhooks.nodeliveries"),
  });
  const name = h("div");
  const turn = (active) => () => ask({ title: t(active ? "webhooks.resume" : "webhooks.pause"), text: t(active ? "webhooks.resume.say" : "webhooks.pause.say"), reason: "none", then: load,
    act: () => write(same(`webhook_${active ? "resume" : "pause"}`, { webhook: id }), "PATCH", path, { active }) });
  // So many at a time: where the next ones begin.
  let from;
  const again = () => ask({ title: t("webhooks.again"), text: t("webhooks.again.say", { state: word("state", query.state) }), reason: "none",
    says: ({ count, has_more }) => (count ? t(has_more ? "webhooks.again.more" : "webhooks.again.done", { n: count }) : t("webhooks.again.none")),
    act: () => write(same("deliveries_replay", { webhook: id, state: query.state, since: from }), "POST", `${path}/replay`, { state: query.state, from }),
    then: ({ has_more, reached }) => {
      from = has_more ? reached : undefined;
      made.reload();
    } });
  const button = (words, then, tone = "") => h("button", { class: `b ${tone}`, type: "button", data: { act: words }, onclick: then }, t(words));
  const load = () => get(path).then((hook) => fill(name, head(ltr(new URL(hook.url).host, { class: "" }), [state(hook.state), " · ", ltr(hook.url), hook.disabled_reason ? [" · ", h("bdi", hook.disabled_reason)] : null],
    button("list.refresh", () => made.reload()), hook.state === "active" ? button("webhooks.pause", turn(false)) : button("webhooks.resume", turn(true)), button("webhooks.test", send("/test", same("webhook_test", { webhook: id })), "first"))))
    .catch(() => fill(name, head(t("webhooks.title"), null, h("button", { class: "b", type: "button", onclick: () => go("webhooks") }, t("nav.webhooks")))));
  load();
  const which = pick(t("webhooks.state"), [["", t("runs.any")], ...STATES.map((one) => [one, word("state", one)])], query.state ?? "", (one) => go(`webhooks/${id}${one ? `?state=${one}` : ""}`, true));
  return { element: h("div", name, h("div", { class: "filters" }, which, AGAIN.has(query.state) ? button("webhooks.again", again) : null), made.element), end: () => made.end() };
}
