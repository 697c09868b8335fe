// Money that goes back: what waits for a second person, and what no gateway can do, of which people say what became.

import { write } from "../api.js";
import { h, ltr } from "../dom.js";
import { num, t, word } from "../i18n.js";
import { ask, nothing } from "../parts/dialog.js";
import { choice, field } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages } from "../parts/list.js";
import { head, link, short, state, when } from "../parts/show.js";

const STATES = ["requested", "approved", "sending", "manual", "done", "refused", "failed"];
/** What may be said of one, and whether that takes what the bank calls it. */
const OUTCOMES = { refunded: true, given_up: false };

export default function refunds({ query, go, me }) {
  const then = () => made.reload();
  const button = (one, words, tone, question) => h("button", { class: `b tiny ${tone}`, type: "button", "aria-label": `${t(words)}: ${one.id.slice(-12)}`, data: { act: words }, onclick: () => ask({ reason: "none", then, ...question }) }, t(words));

  const answer = (one, how, tone) => button(one, `payments.${how}`, tone, { title: t(`payments.${how}`), text: t(`payments.refund.${how}.say`), danger: tone === "bad",
    act: () => write(same(`refund_${how}`, { refund: one.id }), "POST", `/v1/refunds/${one.id}/${how}`) });

  const decide = (one) => button(one, "payments.decide", "first", { title: t("payments.decide"), text: t("payments.decide.say"),
    fields: [
      field("payments.outcome", choice("outcome", Object.keys(OUTCOMES).map((name) => [name, t(`payments.outcome.${name}`)]), "refunded")),
      field("payments.transaction", h("input", { class: "i mono", name: "transaction", dir: "ltr", maxlength: 200, autocomplete: "off" }), "payments.transaction.hint"),
      field("payments.evidence", h("textarea", { class: "i", name: "evidence", maxlength: 4000, required: true }), "payments.evidence.hint"),
    ],
    act: ({ outcome, transaction, evidence }) => {
      const said = OUTCOMES[outcome] && transaction.trim() ? { transaction: transaction.trim() } : {};
      return write(same("refund_decide", { refund: one.id, outcome, evidence, ...said }), "POST", `/v1/refunds/${one.id}/decisions`, { outcome, evidence, ...said });
    } });

  /** Whoever asked may take it back; that it goes takes another. */
  const deeds = (one) => (one.state === "requested" ? h("div", { class: "line" }, one.requested_by === me.id ? null : answer(one, "approve", "first"), answer(one, "refuse", "bad")) : one.state === "manual" ? decide(one) : "");

  const made = pages({
    path: "/v1/refunds", query: { state: query.state }, key: (one) => one.id, label: t("payments.refunds"),
    columns: [
      { label: t("payments.payment"), cell: (one) => link(`payments/${one.payment_id}`, short(one.payment_id)) },
      { label: t("webhooks.state"), class: "two", cell: (one) => [state(one.state), one.failure_code ? h("div", { class: "small dim" }, ltr(one.failure_code), " ", one.failure_detail ?? "") : null] },
      { label: t("payments.refund.amount"), end: true, cell: (one) => num(one.amount) },
      { label: t("act.reason"), cell: (one) => h("div", { class: "say small", dir: "auto" }, one.automatic ? t("payments.refund.automatic") : one.reason) },
      { label: t("payments.who"), class: "two", cell: (one) => [one.requested_by ? short(one.requested_by) : "–", one.approved_by ? h("div", { class: "small dim" }, short(one.approved_by)) : null] },
      { label: t("payments.opened"), end: true, cell: (one) => when(one.created_at) },
      { label: "", end: true, cell: deeds },
    ], empty: () => nothing("payments.norefund"),
  });
  const states = choice("state", [["", t("runs.any")], ...STATES.map((name) => [name, word("state", name)])], query.state ?? "", (name) => go(name ? `payments/refunds?state=${name}` : "payments/refunds"), t("webhooks.state"));
  return { element: h("div", head(t("payments.refunds"), t("payments.refunds.sub"), link("payments", t("payments.title"))), h("div", { class: "filters" }, states), made.element), end: () => made.end() };
}
