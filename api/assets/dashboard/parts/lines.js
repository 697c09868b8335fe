// Lines of the command line, by what is done here: whoever does it once by hand can do it a hundred times by a script.

import { line } from "./show.js";

/** What stands in {braces} is filled in; what stands in [brackets] is said as often as something is given for it. A line whose reason stands
    in no brackets is of something dangerous: without a reason there is no line, and without a line nothing is done. */
const LINES = {
  bulk_preview: "flatrender api preview_bulk action={action} filter:={filter} reason={reason} [priority={priority}] [rate_per_second={rate}]",
  bulk_rest: "flatrender operate bulk retry --rest-of={bulk} --reason={reason}",
  bulk_begin: "flatrender operate begin {bulk} --confirm {n}",
  bulk_pause: "flatrender operate pause-bulk {bulk}",
  bulk_resume: "flatrender operate resume-bulk {bulk}",
  bulk_abort: "flatrender operate abort {bulk} --reason={reason}",
  node_begin: "flatrender-node --server {server} --token {token}",
  node_doctor: "flatrender-node doctor",
  node_drain: "flatrender node drain -- {node}",
  node_resume: "flatrender node resume -- {node}",
  node_quarantine: "flatrender node quarantine --reason={reason} -- {node}",
  node_release: "flatrender node release -- {node}",
  node_retire: "flatrender node retire --reason={reason} -- {node}",
  node_rotate_credential: "flatrender node rotate-credential -- {node}",
  node_sleep: "flatrender node sleep --days={days} --from={from} --to={to} --tz={tz} [--at-once] -- {node}",
  node_wake: "flatrender node wake -- {node}",
  node_keep: "flatrender node keep --package {package} -- {node}",
  node_let_go: "flatrender node let-go --package {package} -- {node}",
  node_evict: "flatrender node evict --package {package} -- {node}",
  tenant_suspend: "flatrender api suspend_tenant id={tenant} reason={reason}",
  tenant_resume: "flatrender api resume_tenant id={tenant}",
  tenant_limit: "flatrender api set_tenant_limit id={tenant} name={limit} hard={hard} [soft={soft}] [window_seconds={window_seconds}]",
  token_make: "flatrender node token --pool={pool} [--label={labels}] --minutes {minutes} [--without-probe]",
  token_revoke: "flatrender node revoke-token {token}",
  schedule_pause: "flatrender schedule pause {schedule}",
  schedule_resume: "flatrender schedule resume {schedule}",
  schedule_run: "flatrender schedule run {schedule}",
  snapshots_make: "flatrender snapshots [--force] -- {template}",
  traced_add: "flatrender traced add [--scene={scene}] -- {template} {file}",
  traced_name: "flatrender traced name -- {template} {picture} {names}",
  traced_remove: "flatrender traced remove -- {template} {picture}",
  webhook_test: "flatrender webhooks test {webhook}",
  webhook_pause: "flatrender webhooks pause {webhook}",
  webhook_resume: "flatrender webhooks resume {webhook}",
  delivery_replay: "flatrender webhooks replay {webhook} {delivery}",
  deliveries_replay: "flatrender webhooks replay {webhook} --state {state} [--from={since}]",
  account_add: "flatrender notifications add --config config.json --rate {rate} --position {position} -- {name} {provider}",
  account_pause: "flatrender notifications pause {account}",
  account_resume: "flatrender notifications resume {account}",
  account_remove: "flatrender notifications remove {account}",
  default_choose: "flatrender notifications default {category} {channel} {turn} [--digest {digest}] [--rest {hours}] [--timezone {zone}]",
  default_usual: "flatrender notifications usual {category} {channel}",
  suppression_lift: "flatrender notifications lift {channel} {hash}",
  people_tell: "flatrender notifications tell --to {who} [--news] -- {subject} {text}",
  words_say: "flatrender notifications say --subject={subject} -- {kind} {channel} {language} {body}",
  words_unsay: "flatrender notifications unsay {kind} {channel} {language}",
  payment_decide: "flatrender payments decide {payment} {outcome} [--amount={amount}] [--currency={currency}] [--transaction={transaction}] --evidence={evidence}",
  decision_confirm: "flatrender payments confirm {decision}",
  decision_refuse: "flatrender payments refuse {decision}",
  bill_send: "flatrender invoices {bill} --send",
  refund_approve: "flatrender refunds approve {refund}",
  refund_refuse: "flatrender refunds refuse {refund}",
  refund_decide: "flatrender refunds decide {refund} {outcome} [--transaction={transaction}] --evidence={evidence}",
  difference_explain: "flatrender differences explain -- {difference} {explanation}",
  difference_confirm: "flatrender differences confirm -- {difference} {explanation}",
};

/** The line of this name with these values, as a shell wants it. */
export function same(name, values = {}) {
  return line(...LINES[name].match(/\[[^\]]+\]|\S+/g).flatMap((part) => said(part, values, name)));
}

/** A part of a line: once for each value there is, and not at all where that is allowed. A flag alone is called as its value is. */
function said(part, values, name) {
  const may = part.startsWith("[");
  const words = (may ? part.slice(1, -1) : part).split(" ");
  const [, key] = /\{(\w+)\}/.exec(part) ?? [];
  if (!may && !key) return words;
  const given = [values[key ?? words[0].slice(2).replaceAll("-", "_")]].flat().filter((one) => one !== undefined && one !== null && one !== false && (one !== "" || !(may || key === "reason")));
  if (!may && !given.length) throw new Error(`${name} takes ${key}`);
  return given.flatMap((one) => words.map((word) => word.replace(/\{\w+\}/, () => String(one))));
}
