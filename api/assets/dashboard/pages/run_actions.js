// What can be done with one run: a button for each, and the question before it.

import { acted } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { ask } from "../parts/dialog.js";
import { choice, field } from "../parts/form.js";

const DANGER = new Set(["cancel", "release"]);
const FIRST = "retry";

/** Buttons for what the API says may be done now. */
export function buttons(run, { go, load }) {
  const act = (body) => acted(`/v1/operate/runs/${run.id}/actions`, body);
  const then = (answer) => (answer.new_run_id ? go(`runs/${answer.new_run_id}`) : load());
  return run.actions.map((name) => h("button", { class: `b${name === FIRST ? " first" : ""}${DANGER.has(name) ? " bad" : ""}`, type: "button", data: { act: name },
    onclick: () => QUESTIONS[name](run, act, then) }, t(`act.${name}`)));
}

const reason = (values) => (values.reason?.trim() ? { reason: values.reason.trim() } : {});

function read(text) {
  try { return JSON.parse(text); } catch (error) { throw new Error(t("ask.json", { why: error.message })); }
}

const steps = (run) => choice("from_step", [["", t("ask.fork.begin")], ...run.steps.map((step) => [step.key, step.key])], "");

const QUESTIONS = {
  // A film is ordered again, from its beginning: it belongs to the run that it was ordered with.
  retry: (run, act, then) => ask({ title: t("ask.retry"), text: t(run.no_copies ? "ask.again.say" : "ask.retry.say"), reason: "wanted", then, fields: run.no_copies ? [] : [field("ask.fork.from", steps(run))],
    act: (values) => act({ action: "retry", ...(values.from_step ? { from_step: values.from_step } : {}), ...reason(values) }) }),
  cancel: (run, act, then) => ask({ title: t("ask.cancel"), text: t("ask.cancel.say"), danger: true, then, act: (values) => act({ action: "cancel", ...reason(values) }) }),
  retry_now: (run, act, then) => ask({ title: t("act.retry_now"), reason: "wanted", then, act: (values) => act({ action: "retry_now", ...reason(values) }) }),
  resume: (run, act, then) => ask({ title: t("act.resume"), reason: "wanted", then, act: (values) => act({ action: "resume", ...reason(values) }) }),
  set_priority: (run, act, then) => ask({ title: t("act.set_priority"), reason: "wanted", then,
    fields: [field("ask.priority", h("input", { class: "i num", name: "priority", type: "number", min: -32768, max: 32767, value: run.priority, required: true }))],
    act: (values) => act({ action: "set_priority", priority: Number(values.priority), ...reason(values) }) }),
  release: (run, act, then) => ask({ title: t("act.release"), danger: true, then,
    fields: [field("ask.task", choice("task", run.tasks.filter((task) => task.state === "leased").map((task) => [task.id, `${task.key || t("run.itself")} · ${task.leased_by}`])))],
    act: (values) => act({ action: "release", task: values.task, ...reason(values) }) }),
  fork: (run, act, then) => ask({ title: t("ask.fork"), text: t("ask.fork.say"), then,
    fields: [field("ask.fork.from", steps(run)), field("ask.fork.input", h("textarea", { class: "i mono", name: "input", dir: "ltr", spellcheck: "false" }, JSON.stringify(run.input, null, 2)))],
    act: async (values) => {
      const input = read(values.input);
      const same = JSON.stringify(input) === JSON.stringify(run.input);
      return act({ action: "fork", ...(values.from_step ? { from_step: values.from_step } : {}), ...(same ? {} : { input }), ...reason(values) });
    } }),
  signal: (run, act, then) => ask({ title: t("ask.signal"), then,
    fields: [field("ask.signal.name", h("input", { class: "i mono", name: "signal", dir: "ltr", required: true, maxlength: 60 })), field("ask.signal.payload", h("textarea", { class: "i mono", name: "payload", dir: "ltr", spellcheck: "false" }, "null"))],
    act: async (values) => act({ action: "signal", signal: values.signal.trim(), payload: read(values.payload), ...reason(values) }) }),
};
