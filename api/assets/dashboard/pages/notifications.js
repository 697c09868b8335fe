// What one's organisation tells its people, and how: who carries it, what counts for whoever chose nothing, where nothing is sent to.

import { get, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t, word } from "../i18n.js";
import { ask, cli, nothing, trouble } from "../parts/dialog.js";
import { choice, field } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { head, link, sheet, state, when } from "../parts/show.js";
import words from "./words.js";

/** What each provider wants to know, and whether that may be left out. */
const PROVIDERS = {
  smtp: { url: true, from: true },
  twilio: { account_sid: true, auth_token: true, from: true, base_url: false },
  kavenegar: { api_key: true, sender: true, base_url: false },
  telegram: { token: true, bot: true, base_url: false },
  vapid: { pkcs8: true, public: true, subject: true },
};
const SECRET = new Set(["url", "auth_token", "api_key", "token", "pkcs8"]);
const CHANNELS = ["inapp", "push", "email", "sms", "telegram"];

export default function notifications(page) {
  if (page.rest.startsWith("words")) return words(page);
  const accounts = busy(), defaults = busy();
  const of_accounts = () => get("/v1/notification-accounts").then(({ data }) => fill(accounts, sheet_of_accounts(data, of_accounts))).catch((error) => fill(accounts, trouble(error, of_accounts)));
  const of_defaults = () => get("/v1/notification-defaults").then(({ data }) => fill(defaults, sheet_of_defaults(data, of_defaults))).catch((error) => fill(defaults, trouble(error, of_defaults)));
  const suppressions = list_of_suppressions();
  of_accounts();
  of_defaults();
  return {
    element: h("div", { class: "stack" },
      head(t("notify.title"), t("notify.sub"), link("notifications/words", t("words.title")), h("button", { class: "b", type: "button", data: { act: "tell" }, onclick: tell }, t("notify.tell"))),
      accounts, defaults, h("h2", t("notify.suppressions")), suppressions.element),
    end: () => suppressions.end(),
  };
}

function sheet_of_accounts(all, then) {
  const turn = (one, active) => ask({ title: t(active ? "notify.resume" : "notify.pause"), text: one.name, reason: "none", then,
    act: () => write(same(`account_${active ? "resume" : "pause"}`, { account: one.id }), "PATCH", `/v1/notification-accounts/${one.id}`, { active }) });
  const remove = (one) => ask({ title: t("notify.remove"), text: t("notify.remove.say", { name: one.name }), reason: "none", danger: true, then,
    act: () => write(same("account_remove", { account: one.id }), "DELETE", `/v1/notification-accounts/${one.id}`) });
  return sheet(t("notify.accounts"), h("button", { class: "b tiny", type: "button", data: { act: "add" }, onclick: () => add_account(then) }, t("notify.add")), all.length ? table([
    { label: t("notify.name"), class: "two", cell: (one) => [h("div", { dir: "auto" }, one.name), h("div", { class: "small dim" }, ltr(one.provider))] },
    { label: t("notify.channel"), cell: (one) => word("channel", one.channel) },
    { label: t("notify.state"), cell: (one) => state(one.state) },
    { label: t("notify.rate"), end: true, cell: (one) => num(one.per_second, 1) },
    { label: t("notify.position"), end: true, cell: (one) => num(one.position) },
    { label: t("notify.feedback"), class: "two", cell: (one) => h("details", h("summary", t("notify.feedback.show")), h("p", { class: "small dim" }, t("notify.feedback.say")), cli(one.feedback_url)) },
    { label: "", end: true, cell: (one) => h("div", { class: "line" },
      one.state === "active" ? h("button", { class: "b tiny", type: "button", onclick: () => turn(one, false) }, t("notify.pause")) : h("button", { class: "b tiny first", type: "button", onclick: () => turn(one, true) }, t("notify.resume")),
      h("button", { class: "b tiny bad", type: "button", onclick: () => remove(one) }, t("notify.remove"))) },
  ], all, { label: t("notify.accounts") }) : nothing("notify.noaccounts"));
}

function add_account(then) {
  const place = h("div", { class: "stack" });
  const wants = (provider) => fill(place, Object.entries(PROVIDERS[provider]).map(([name, needed]) => {
    const attributes = { class: "i mono", name: `config.${name}`, dir: "ltr", required: needed, autocomplete: "off", spellcheck: "false" };
    return field(`notify.config.${name}`, SECRET.has(name) ? h("input", { ...attributes, type: "password", autocomplete: "new-password" }) : h("input", attributes), needed ? null : "notify.optional");
  }));
  wants("smtp");
  ask({
    title: t("notify.add"), text: t("notify.add.say"), reason: "none", then,
    fields: [
      field("notify.provider", choice("provider", Object.keys(PROVIDERS).map((name) => [name, t(`notify.provider.${name}`)]), "smtp", wants)),
      field("notify.name", h("input", { class: "i", name: "name", maxlength: 100, required: true, autocomplete: "off" })), place,
      field("notify.rate", h("input", { class: "i num", name: "rate", type: "number", min: 0.1, max: 1000, step: "any", value: 10 })),
      field("notify.position", h("input", { class: "i num", name: "position", type: "number", value: 0 }), "notify.position.hint"),
    ],
    act: ({ name, provider, rate, position, ...rest }) => {
      const config = Object.fromEntries(Object.keys(PROVIDERS[provider]).map((key) => [key, (rest[`config.${key}`] ?? "").trim()]).filter(([, value]) => value));
      const asked = { name: name.trim(), provider, config, per_second: Number(rate || 10), position: Number(position || 0) };
      return write(same("account_add", { ...asked, rate: asked.per_second }), "POST", "/v1/notification-accounts", asked);
    },
  });
}

function sheet_of_defaults(all, then) {
  const categories = [...new Set(all.map((one) => one.category))];
  const of = (category, channel) => all.find((one) => one.category === category && one.channel === channel);
  return sheet(t("notify.defaults"), t("notify.defaults.say"), table([
    { label: t("notify.category"), class: "two", cell: (category) => [h("div", word("category", category)), of(category, "email")?.class === "service" ? null : h("div", { class: "small dim" }, word("notify.class", of(category, "email")?.class))] },
    ...CHANNELS.map((channel) => ({ label: word("channel", channel), class: "two", cell: (category) => choice_of(of(category, channel), then) })),
  ], categories, { label: t("notify.defaults") }));
}

/** What counts of a category by a channel, as the button that changes it. */
function choice_of(one, then) {
  if (!one) return "";
  const says = [t(one.enabled ? "notify.on" : "notify.off"), one.enabled && one.digest !== "off" ? t(`notify.digest.${one.digest}`) : null, one.quiet_start ? `${one.quiet_start}–${one.quiet_end}` : null].filter(Boolean).join(" · ");
  const yours = one.chosen_by === "tenant";
  const label = `${word("category", one.category)}, ${word("channel", one.channel)}: ${says}${yours ? `, ${t("notify.yours")}` : ""}`;
  return h("button", { class: `b tiny${one.enabled ? "" : " plain"}`, type: "button", "aria-label": label, data: { key: `${one.category}/${one.channel}` }, onclick: () => choose(one, then) },
    says, yours ? h("span", { class: "tag run" }, t("notify.yours")) : null);
}

function choose(one, then) {
  const path = `/v1/notification-defaults/${one.category}/${one.channel}`;
  const time = (name, value) => h("input", { class: "i num", name, type: "time", dir: "ltr", value: value ?? "" });
  const chosen = one.chosen_by === "tenant" ? (one.enabled ? "on" : "off") : "usual";
  // What is usual is taken as it is.
  const rest = h("div", { class: "in", hidden: chosen === "usual" },
    field("notify.digest", choice("digest", ["off", "hourly", "daily"].map((name) => [name, t(`notify.digest.${name}`)]), one.digest)),
    field("notify.rest.from", time("quiet_start", one.quiet_start), "notify.rest.hint"), field("notify.rest.to", time("quiet_end", one.quiet_end)),
    field("notify.zone", h("input", { class: "i mono", name: "timezone", dir: "ltr", value: one.timezone ?? "", autocomplete: "off" }), "notify.zone.hint"));
  ask({
    title: `${word("category", one.category)}: ${word("channel", one.channel)}`, text: t(one.class === "critical" ? "notify.critical" : "notify.choose.say"), reason: "none", then,
    fields: [
      field("notify.what", choice("what", [["on", t("notify.on")], ["off", t("notify.off")], ["usual", t("notify.usual")]], chosen, (what) => { rest.hidden = what === "usual"; })), rest,
    ],
    act: ({ what, digest, quiet_start: from, quiet_end: to, timezone }) => {
      const of = { category: one.category, channel: one.channel };
      if (what === "usual") return write(same("default_usual", of), "DELETE", path);
      const zone = timezone.trim();
      const line = same("default_choose", { ...of, turn: what, digest: digest === "off" ? null : digest, hours: from ? `${from}-${to}` : null, zone });
      return write(line, "PUT", path, { enabled: what === "on", digest, ...(from ? { quiet_start: from } : {}), ...(to ? { quiet_end: to } : {}), ...(zone ? { timezone: zone } : {}) });
    },
  });
}

function list_of_suppressions() {
  const lift = (one) => ask({ title: t("notify.lift"), text: t("notify.lift.say"), reason: "none", then: () => made.reload(),
    act: () => write(same("suppression_lift", { channel: one.channel, hash: one.address_hash }), "DELETE", `/v1/notification-suppressions/${one.channel}/${one.address_hash}`) });
  const made = pages({
    path: "/v1/notification-suppressions", query: {}, key: (one) => `${one.address_hash}_${one.channel}`, label: t("notify.suppressions"),
    columns: [
      { label: t("notify.address"), cell: (one) => ltr(`${one.address_hash.slice(0, 16)}…`, { title: one.address_hash }) },
      { label: t("notify.channel"), cell: (one) => word("channel", one.channel) },
      { label: t("audit.why"), cell: (one) => word("notify.reason", one.reason) },
      { label: t("notify.until"), end: true, cell: (one) => (one.until ? when(one.until) : t("notify.forever")) },
      { label: t("workers.since"), end: true, cell: (one) => when(one.created_at) },
      { label: "", end: true, cell: (one) => h("button", { class: "b tiny", type: "button", onclick: () => lift(one) }, t("notify.lift")) },
    ], empty: () => nothing("notify.nosuppressions"),
  });
  return made;
}

/** Tells people something: those who manage first, which shows that messages arrive. */
function tell() {
  // The same for as long as the question stands: asking again tells nobody twice.
  const key = `page-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  ask({
    title: t("notify.tell"), text: t("notify.tell.say"), reason: "none",
    fields: [
      field("notify.to", choice("to", ["managers", "everyone"].map((name) => [name, t(`notify.to.${name}`)]), "managers")),
      field("notify.as", choice("kind", ["announcement", "news"].map((name) => [name, t(`notify.as.${name}`)]), "announcement")),
      field("words.subject", h("input", { class: "i", name: "subject", maxlength: 200, required: true, dir: "auto", autocomplete: "off" })),
      field("words.body", h("textarea", { class: "i", name: "text", maxlength: 500, required: true, dir: "auto" })),
    ],
    act: ({ to, kind, subject, text }) => write(same("people_tell", { who: to, news: kind === "news", subject, text }), "POST", "/v1/notification-broadcasts", { key, to, kind, subject, text }),
  });
}
