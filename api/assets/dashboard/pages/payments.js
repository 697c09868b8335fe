// Payments of one's organisation: those that wait for people, what people said of them, the second one who agrees, and their bills.

import { at, get, write } from "../api.js";
import { fill, h, ltr } from "../dom.js";
import { money, t, word } from "../i18n.js";
import { ask, nothing, trouble } from "../parts/dialog.js";
import { choice, field, pick } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { pages, table } from "../parts/list.js";
import { head, link, pairs, sheet, short, state, when } from "../parts/show.js";
import refunds from "./refunds.js";

const STATES = ["review", "pending", "paid", "refunding", "partially_refunded", "refunded", "failed", "expired", "cancelled"];
/** What may be said of a payment, and whether that takes an amount and what the bank calls it. */
const OUTCOMES = { paid: true, refund: true, failed: false };

export default function payments(page) {
  if (page.rest === "differences") return differences(page);
  if (page.rest === "refunds") return refunds(page);
  return page.rest ? one(page) : list(page);
}

const differ = (what, one, explanation) => write(same(`difference_${what}`, { difference: one.id, explanation }), "POST", `/v1/payment-differences/${one.id}/${what}`,
  { explanation, our_amount: one.our_amount, their_amount: one.their_amount });

/** What differs from the gateways, until two people have explained it. */
function differences({ query, go, me }) {
  const all = query.all === "true";
  const say = (one) => ask({ title: t("payments.explain"), text: t("payments.explain.say"), reason: "none", then: () => made.reload(),
    fields: [field("payments.explanation", h("textarea", { class: "i", name: "explanation", maxlength: 4000, required: true }, one.explanation ?? ""))],
    act: ({ explanation }) => differ("explain", one, explanation) });
  const confirm = (one) => ask({ title: t("payments.confirm"), text: one.explanation, reason: "none", then: () => made.reload(),
    act: () => differ("confirm", one, one.explanation) });
  const deeds = (one) => (one.confirmed_at ? when(one.confirmed_at) : h("div", { class: "line" },
    h("button", { class: "b tiny", type: "button", onclick: () => say(one) }, t("payments.explain")),
    one.explained_by && one.explained_by !== me.id ? h("button", { class: "b tiny first", type: "button", onclick: () => confirm(one) }, t("payments.confirm")) : null));
  const made = pages({
    path: "/v1/payment-differences", query: all ? { all: "true" } : {}, key: (one) => one.id, label: t("payments.differences"),
    columns: [
      { label: t("payments.what"), class: "two", cell: (one) => [one.day ? ltr(one.day) : ltr(one.reference ?? ""), h("div", { class: "small dim" }, word("payments.difference", one.kind), " · ", ltr(one.provider))] },
      { label: t("payments.ours"), end: true, cell: (one) => money(one.our_amount, one.currency) },
      { label: t("payments.theirs"), end: true, cell: (one) => money(one.their_amount, one.currency) },
      { label: t("payments.known"), cell: (one) => h("div", { class: "say small", dir: "auto" }, one.detail ?? "") },
      { label: t("payments.explanation"), class: "two", cell: (one) => (one.explanation ? [h("div", { class: "say", dir: "auto" }, one.explanation), h("div", { class: "small dim" }, short(one.explained_by))] : "–") },
      { label: "", end: true, cell: deeds },
    ], empty: () => nothing("payments.nodifference"),
  });
  const which = pick(t("payments.differences"), [["open", t("payments.open")], ["all", t("runs.any")]], all ? "all" : "open", (name) => go(`payments/differences${name === "all" ? "?all=true" : ""}`));
  return { element: h("div", head(t("payments.differences"), t("payments.differences.sub"), link("payments", t("payments.title"))), h("div", { class: "filters" }, which), made.element), end: () => made.end() };
}

function list({ query, go }) {
  const wanted = query.state ?? "review";
  const made = pages({
    path: "/v1/payments", query: wanted === "any" ? {} : { state: wanted }, key: (one) => one.id, label: t("payments.title"), open: (one) => go(`payments/${one.id}`),
    columns: [
      { label: t("payments.payment"), class: "two", cell: (one) => [link(`payments/${one.id}`, short(one.id)), h("div", { class: "small dim" }, word("payments.purpose", one.purpose))] },
      { label: t("webhooks.state"), class: "two", cell: (one) => [state(one.state), one.review_code ?? one.failure_code ? h("div", { class: "small dim" }, ltr(one.review_code ?? one.failure_code)) : null] },
      { label: t("payments.provider"), cell: (one) => h("span", { class: "tag" }, ltr(one.provider)) },
      { label: t("payments.amount"), end: true, cell: (one) => money(one.amount, one.currency) },
      { label: t("payments.opened"), end: true, cell: (one) => when(one.created_at) },
    ], empty: () => nothing("payments.none"),
  });
  const states = pick(t("webhooks.state"), [["review", word("state", "review")], ["any", t("runs.any")]], wanted, (name) => go(name === "review" ? "payments" : `payments?state=${name}`));
  const more = choice("state", [["any", t("runs.any")], ...STATES.map((name) => [name, word("state", name)])], wanted, (name) => go(`payments?state=${name}`), t("webhooks.state"));
  return { element: h("div", head(t("payments.title"), t("payments.sub"), link("payments/refunds", t("payments.refunds")), link("payments/differences", t("payments.differences"))), h("div", { class: "filters" }, states, more), made.element), end: () => made.end() };
}

function one({ rest: id, me }) {
  const place = h("div", { class: "stack" });
  const load = () => Promise.all([get(`/v1/payments/${id}`), get(at("/v1/invoices", { payment_id: id, limit: 100 }))]).then(([payment, bills]) => fill(place, view(payment, bills.data))).catch((error) => fill(place, head(t("payments.title")), trouble(error, load)));
  const decidable = (payment) => payment.state === "review" || (payment.provider === "manual" && ["pending", "verifying", "cancelled", "expired"].includes(payment.state));

  function propose(payment) {
    ask({ title: t("payments.decide"), text: t("payments.decide.say"), reason: "none", then: load,
      fields: [
        field("payments.outcome", choice("outcome", Object.keys(OUTCOMES).map((name) => [name, t(`payments.outcome.${name}`)]), "paid")),
        field("payments.amount", h("input", { class: "i num", name: "amount", type: "number", min: 0, value: payment.amount }), "payments.amount.hint"),
        field("payments.currency", h("input", { class: "i mono", name: "currency", dir: "ltr", maxlength: 3, value: payment.currency })),
        field("payments.transaction", h("input", { class: "i mono", name: "transaction", dir: "ltr", maxlength: 200, autocomplete: "off" }), "payments.transaction.hint"),
        field("payments.evidence", h("textarea", { class: "i", name: "evidence", maxlength: 4000, required: true }), "payments.evidence.hint"),
      ],
      act: ({ outcome, amount, currency, transaction, evidence }) => {
        const money = OUTCOMES[outcome] ? { amount: Number(amount), currency: currency.trim(), transaction: transaction.trim() } : {};
        return write(same("payment_decide", { payment: id, outcome, evidence, ...money }), "POST", `/v1/payments/${id}/decisions`, { outcome, evidence, ...money });
      } });
  }

  const answer = (decision, how, tone) => h("button", { class: `b tiny ${tone}`, type: "button", onclick: () => ask({ title: t(`payments.${how}`), text: t(`payments.${how}.say`), reason: "none", danger: tone === "bad", then: load,
    act: () => write(same(`decision_${how}`, { decision: decision.id }), "POST", `/v1/payment-decisions/${decision.id}/${how}`) }) }, t(`payments.${how}`));

  const send = (bill) => h("button", { class: "b tiny", type: "button", "aria-label": `${t("payments.send")}: ${bill.number ?? ""}`, data: { act: "send" }, onclick: () => ask({ title: t("payments.send"), text: t("payments.send.say"), reason: "none",
    act: () => write(same("bill_send", { bill: bill.id }), "POST", `/v1/invoices/${bill.id}/send`) }) }, t("payments.send"));

  function view(payment, bills) {
    const mine = (decision) => decision.proposed_by === me.id;
    return [
      head(money(payment.amount, payment.currency), [state(payment.state), " · ", ltr(payment.provider)], decidable(payment) ? h("button", { class: "b first", type: "button", onclick: () => propose(payment) }, t("payments.decide")) : null),
      payment.review_code ? h("div", { class: "ask bad" }, h("p", { class: "say" }, ltr(payment.review_code))) : null,
      sheet(t("payments.payment"), null, h("div", { class: "in" }, pairs([
        [t("payments.purpose"), word("payments.purpose", payment.purpose)], [t("payments.amount"), money(payment.amount, payment.currency)],
        [t("payments.back"), payment.refunded_amount ? money(payment.refunded_amount, payment.currency) : null], [t("payments.who"), short(payment.user_id)],
        [t("payments.opened"), when(payment.created_at)], [t("payments.paid"), payment.paid_at && when(payment.paid_at)], [t("payments.until"), when(payment.expires_at)],
        [t("runs.error"), payment.failure_code && ltr(payment.failure_code)], [t("payments.payment"), ltr(payment.id)],
      ]))),
      bills.length ? sheet(t("payments.bills"), null, table([
        { label: t("payments.bill"), class: "two", cell: (bill) => [ltr(bill.number), h("div", { class: "small dim" }, word("payments.bill", bill.kind))] },
        { label: t("payments.issued"), cell: (bill) => (bill.issue_date ? ltr(bill.issue_date) : "–") },
        { label: t("payments.amount"), end: true, cell: (bill) => money(bill.total_amount, bill.currency) },
        { label: "", end: true, cell: send },
      ], bills)) : null,
      sheet(t("payments.decisions"), null, payment.decisions.length ? table([
        { label: t("payments.outcome"), class: "two", cell: (one) => [t(`payments.outcome.${one.outcome}`), one.transaction ? h("div", { class: "small dim" }, ltr(one.transaction)) : null] },
        { label: t("payments.amount"), end: true, cell: (one) => (one.amount === null ? "–" : money(one.amount, one.currency ?? payment.currency)) },
        { label: t("payments.evidence"), cell: (one) => h("div", { class: "say" }, one.evidence) },
        { label: t("webhooks.state"), cell: (one) => state(one.state) },
        { label: t("payments.who"), class: "two", cell: (one) => [short(one.proposed_by), one.decided_by ? h("div", { class: "small dim" }, short(one.decided_by)) : null] },
        { label: "", end: true, cell: (one) => (one.state !== "proposed" ? null : h("div", { class: "line" }, mine(one) ? h("span", { class: "small dim" }, t("payments.another")) : answer(one, "confirm", "first"), answer(one, "refuse", "bad"))) },
      ], payment.decisions) : h("div", { class: "in dim" }, t("payments.nodecision"))),
    ];
  }
  load();
  return { element: place, end() {} };
}
