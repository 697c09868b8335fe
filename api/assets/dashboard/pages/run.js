// One run: why it is where it is, what it did with its time, and what can be done about it.

import { at, get } from "../api.js";
import { fill, h, ltr } from "../dom.js";
import { between, knows, moment, num, t, word } from "../i18n.js";
import { trouble, undone } from "../parts/dialog.js";
import { filmOf } from "../parts/frames.js";
import { gantt } from "../parts/gantt.js";
import { table } from "../parts/list.js";
import { entitle, head, json, link, meter, pairs, sheet, short, state, when } from "../parts/show.js";
import { follow } from "../stream.js";
import { buttons } from "./run_actions.js";
import { deeds } from "./audit.js";

/** Milliseconds between two looks at a film under way. */
const FILM = 3000;
/** Steps that are shown more at a time. */
const STEPS = 100;

export default function run({ rest: id, go, role }) {
  const place = h("div", { class: "stack" });
  const element = h("div", place);
  const film = filmOf(id);
  const left = new AbortController();
  const saver = h("button", { class: "b", type: "button", data: { act: "save" }, onclick: async () => {
    saver.disabled = true;
    await save(id, left.signal).catch((error) => { if (error.name !== "AbortError") undone(error); });
    saver.disabled = false;
    if (document.activeElement === document.body) saver.focus({ preventScroll: true });
  } }, t("run.save"));
  let known = null, watching = null;
  const show = (data, done) => {
    known = [data, done];
    const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.key));
    fill(place, view(data, done, { go, load, earlier, role, saver, film: film.element }));
    place.querySelectorAll("details").forEach((one) => { if (open.has(one.dataset.key)) one.open = true; });
  };
  const earlier = async () => {
    try {
      const [{ steps }] = known;
      const { data } = await get(`/v1/operate/runs/${id}/steps?limit=${STEPS}&starting_after=${steps[0].seq}`);
      // What is shown by now may have come meanwhile.
      const [run, done] = known;
      if (place.isConnected) show({ ...run, steps: joined(data.reverse(), run.steps) }, done);
    } catch (error) { undone(error); }
  };
  const load = async () => {
    try {
      const [data, { data: done }] = await Promise.all([get(`/v1/operate/runs/${id}`), get(`/v1/operate/audit?target=run:${id}&limit=20`)]);
      // Whoever left meanwhile watches nothing any more.
      if (!place.isConnected) return;
      if (data.kind === "render_video") {
        film.load();
        clearInterval(watching);
        watching = data.state === "running" ? setInterval(film.load, FILM) : null;
      }
      entitle(`${data.kind} ${data.id.slice(-12)}`, place);
      show({ ...data, steps: joined(known?.[0].steps ?? [], data.steps) }, done);
    } catch (error) {
      if (!known) fill(place, head(t("run.title")), trouble(error.code === "run.not_found" ? Object.assign(error, { message: t("run.notfound") }) : error, load));
    }
  };
  load();
  // What changed while nobody listened is not told again.
  let heard = false;
  const stood = (on) => { if (on && heard) load(); heard ||= on; };
  const stop = follow({ run_id: id }, (kind) => { if (kind === "run" || kind === "deed") load(); }, stood);
  return { element, end() { left.abort(); clearInterval(watching); stop(); } };
}

/** Saves a run as the API tells of it, with all of its steps, as a file. */
async function save(id, signal) {
  const run = await get(`/v1/operate/runs/${id}`, signal);
  const parts = [run.steps];
  for (let from = run.earlier_steps; from;) {
    const page = await get(at(`/v1/operate/runs/${id}/steps`, { limit: STEPS, starting_after: from }), signal);
    parts.unshift(page.data.reverse());
    from = page.next_cursor;
  }
  const text = JSON.stringify({ ...run, steps: parts.flat(), earlier_steps: null }, null, 2);
  const file = h("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `${run.kind}-${id}.json` });
  file.click();
  setTimeout(() => URL.revokeObjectURL(file.href), 10000);
}

/** Steps with those before them that are known, unless there is a gap in between: they are numbered from 1 without any. */
function joined(known, steps) {
  const first = steps[0]?.seq ?? 1;
  const before = known.filter((step) => step.seq < first);
  return before.at(-1)?.seq === first - 1 ? [...before, ...steps] : steps;
}

/** The sentence that says why a run is where it is, in the language of the page. */
export function sentence(why) {
  const parts = { ...why.details };
  for (const name of ["until", "since", "at"]) if (parts[name]) parts[name] = moment(parts[name]);
  parts.state &&= word("state", parts.state);
  if (why.reason === "parked") parts.why = word("parked", parts.why);
  for (const [name, value] of Object.entries(parts)) if (value !== null && typeof value === "object") parts[name] = Object.values(value).join(", ");
  parts.code ??= "workflow.lost";
  const words = word("why", why.reason);
  return words === why.reason ? why.text : t(`why.${why.reason}`, parts);
}

function view(run, done, { go, load, earlier, role, saver, film }) {
  const over = run.state !== "running";
  const tone = run.why.reason === "over" ? (run.state === "succeeded" ? "good" : run.state === "failed" ? "bad" : "") : ["leased", "timer", "signal", "child", "ready"].includes(run.why.reason) ? "" : "wait";
  return [
    h("div", { class: "head" },
      h("div", h("h1", ltr(run.kind, { class: "" })), h("p", { class: "sub" }, state(run.state), " · ", ltr(run.id), " · ", when(run.created_at))),
      h("div", { class: "do" }, saver, buttons(run, { go, load }))),
    h("div", { class: `ask ${tone}` }, h("div", { class: "grow" }, h("h2", { class: "unseen" }, t("run.why")), h("p", { class: "say" }, run.why.key ? [ltr(run.why.key), ": "] : null, sentence(run.why)),
      run.error ? h("p", { class: "small", dir: "auto" }, ltr(run.error.code), " ", run.error.message) : null,
      run.no_copies && over && run.error && !run.copies.length && !run.actions.includes("retry") ? h("p", { class: "small dim", dir: "auto" }, t("run.nocopies", { why: knows(`left.retry.${run.kind}`) ? t(`left.retry.${run.kind}`) : run.no_copies })) : null)),
    film,
    sheet(t("run.timeline"), t("run.whole", { span: between(run.created_at, run.finished_at) }), h("div", { class: "in" }, gantt(run))),
    run.tasks.length ? sheet(t("run.tasks"), null, table([
      { label: t("run.key"), cell: (task) => (task.key ? ltr(task.key) : t("run.itself")) },
      { label: t("runs.queue"), cell: (task) => ltr(task.queue) },
      { label: t("runs.state"), cell: (task) => (task.parked_reason ? state("paused", word("parked", task.parked_reason)) : state(task.state)) },
      { label: t("run.by"), cell: (task) => (task.leased_by ? ltr(task.leased_by) : when(task.run_at)) },
      { label: t("run.attempt"), end: true, cell: (task) => num(task.attempt_no) },
      { label: t("run.progress"), cell: (task) => (task.progress_total ? h("div", meter(task.progress_done, task.progress_total), h("span", { class: "small dim num" }, `${num(task.progress_done)} / ${num(task.progress_total)}`)) : "") },
    ], run.tasks)) : null,
    h("div", { class: "cols" },
      sheet(t("run.details"), null, h("div", { class: "in" }, pairs([
        [t("runs.id"), ltr(run.id)], [t("runs.tenant"), role.wide ? link(`runs?tenant_id=${run.tenant_id}`, ltr(run.tenant_id)) : null], [t("runs.about"), run.business_key && ltr(run.business_key)],
        [t("versions.name"), num(run.version)], [t("run.priority"), num(run.priority)], [t("runs.created"), moment(run.created_at)], [t("run.at"), run.finished_at && moment(run.finished_at)],
        [t("run.parent"), run.parent_run_id && link(`runs/${run.parent_run_id}`, short(run.parent_run_id))],
        [t("run.lineage"), run.origin && link(`runs/${run.origin.origin_run_id}`, word("act", run.origin.how), " ", short(run.origin.origin_run_id))],
        [t("run.copies"), run.copies.length ? run.copies.map((copy) => h("div", link(`runs/${copy.run_id}`, word("act", copy.how), " ", short(copy.run_id)))) : null],
        [t("failures.cause"), run.fingerprint && link(`failures/${encodeURIComponent(run.fingerprint)}`, ltr(run.error_code))],
        [t("run.trace"), run.trace_id && ltr(run.trace_id)],
      ]))),
      sheet(t("run.input"), null, h("div", { class: "in stack" }, json(run.input), run.output !== null && over ? [h("h3", t("run.output")), json(run.output)] : null, run.attributes ? json(run.attributes) : null))),
    said(run),
    run.failures.length ? sheet(t("run.attempts"), null, table([
      { label: t("run.key"), cell: (one) => (one.key ? ltr(one.key) : t("run.itself")) },
      { label: t("run.attempt"), end: true, cell: (one) => num(one.attempt_no) },
      { label: t("run.result"), cell: (one) => state(one.outcome) },
      { label: t("run.by"), cell: (one) => ltr(one.worker) },
      { label: t("run.what"), class: "two", cell: (one) => (one.failure ? [h("div", ltr(one.failure.code ?? "")), h("div", { class: "small dim", dir: "auto" }, one.failure.message ?? ""), evidence(`a${one.key}${one.attempt_no}`, one.failure.details)] : "") },
      { label: t("run.at"), end: true, cell: (one) => when(one.ended_at) },
    ], run.failures)) : null,
    sheet(t("run.steps"), num(run.steps.at(-1)?.seq ?? 0), run.steps[0]?.seq > 1 ? h("div", { class: "in" }, h("button", { class: "b", type: "button", data: { act: "earlier" }, onclick: earlier }, t("run.earlier"))) : null, run.steps.length ? table([
      { label: "#", end: true, cell: (step) => num(step.seq) },
      { label: t("run.key"), cell: (step) => ltr(step.key) },
      { label: t("run.what"), cell: (step) => h("span", { class: "dim" }, word("kind", step.kind), step.name ? [" ", ltr(step.name)] : null) },
      { label: t("run.result"), class: "two", cell: (step) => [state(step.outcome), step.error ? h("div", { class: "small dim", dir: "auto" }, ltr(step.error.code), " ", step.error.message) : null, evidence(`s${step.seq}`, step.error?.details ?? step.output)] },
      { label: t("run.at"), end: true, cell: (step) => when(step.recorded_at) },
    ], run.steps) : h("div", { class: "in dim" }, t("run.none"))),
    run.children.length ? sheet(t("run.children"), num(run.children.length), table([
      { label: t("runs.kind"), cell: (child) => link(`runs/${child.run_id}`, ltr(child.kind)) },
      { label: t("run.key"), cell: (child) => ltr(child.key) },
      { label: t("runs.state"), cell: (child) => state(child.state) },
      { label: t("runs.took"), end: true, cell: (child) => between(child.created_at, child.finished_at) },
    ], run.children, { open: (child) => go(`runs/${child.run_id}`) })) : null,
    done.length ? sheet(t("run.deeds"), null, deeds(done)) : null,
  ];
}

/** The end of what the program said of which the failure tells, or the newest of those before it; as it was said. */
function said(run) {
  const { log_tail, log } = (run.error ?? run.failures[0]?.failure)?.details ?? {};
  const tail = [log_tail, log].find((one) => one?.length);
  return tail ? sheet(t("run.log"), null, h("div", { class: "in" }, h("pre", { class: "json", tabindex: 0, dir: "ltr" }, [tail].flat().join("\n")))) : null;
}

function evidence(key, value) {
  if (value === null || value === undefined || (typeof value === "object" && !Object.keys(value).length)) return null;
  return h("details", { data: { key } }, h("summary", t("run.evidence")), json(value));
}
