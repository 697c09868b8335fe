// What lies above the page: questions before something is done, and what was said of it afterwards.

import { post, shown } from "../api.js";
import { add, h, say } from "../dom.js";
import { knows, t } from "../i18n.js";
import { field } from "./form.js";

const layer = () => document.getElementById("layer");

/** Shows a box; the returned function takes it away. The keyboard stays within, and goes back to where it was: the page below is out of reach. */
export function box(title, content, buttons) {
  const before = document.activeElement;
  const inside = h("div", { class: "box", role: "dialog", tabindex: -1, "aria-modal": "true", "aria-label": title },
    h("div", { class: "top" }, h("h2", { class: "grow" }, title), h("button", { class: "b plain tiny", type: "button", "aria-label": t("act.close"), onclick: () => close() }, "✕")),
    h("div", { class: "in" }, content), buttons ? h("div", { class: "acts" }, buttons) : null);
  const veil = h("div", { class: "veil", onmousedown: (event) => { if (event.target === veil) close(); }, onkeydown: (event) => {
    if (event.key === "Escape") { event.stopPropagation(); close(); }
    if (event.key !== "Tab") return;
    const all = [...inside.querySelectorAll("button, input, select, textarea, a[href]")].filter((one) => !one.disabled && one.offsetParent);
    const at = all.indexOf(document.activeElement);
    if (at < 0 && document.activeElement !== inside) return;
    if (event.shiftKey ? at <= 0 : at === all.length - 1) { event.preventDefault(); all.at(event.shiftKey ? -1 : 0).focus(); }
  } }, inside);
  function close() {
    if (!veil.isConnected) return;
    veil.remove();
    under.inert = layer().childElementCount > 0;
    (before?.isConnected ? before : document.getElementById("main"))?.focus?.({ preventScroll: true });
  }
  const under = document.getElementById("app");
  under.inert = true;
  layer().append(veil);
  (inside.querySelector(".in input, .in textarea, .in select") ?? inside.querySelector(".acts button") ?? inside.querySelector("button")).focus();
  return close;
}

/** A question before something is done. `fields` make the inputs; `act(values)` does it and answers what the API said, of which `says` tells
    what came of it; `because` is a reason that was given before. */
export function ask({ title, text, fields = [], reason = "needed", danger = false, act, says = () => title, then, because = "" }) {
  const why = h("input", { class: "i", name: "reason", maxlength: 500, required: reason === "needed", autocomplete: "off", value: because });
  const wrong = h("p", { class: "ask bad small", role: "alert", hidden: true });
  const go = h("button", { class: `b first${danger ? " bad" : ""}`, type: "submit" }, t("act.do"));
  const form = h("form", { class: "in", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    if (reason === "needed" && !values.reason.trim()) {
      why.setAttribute("aria-invalid", "true");
      why.focus();
      return complain(t("act.reason.needed"));
    }
    go.disabled = true;
    try {
      const answer = await act(values);
      close();
      done(says(answer), answer);
      then?.(answer);
    } catch (error) {
      go.disabled = false;
      if (error.code === "auth.step_up") { close(); return stepUp(() => ask({ title, text, fields, reason, danger, act, says, then, because: why.value })); }
      complain(said_of(error));
      // A button that is turned off loses the keyboard.
      go.focus();
    }
  } }, text ? h("p", { class: "dim" }, text) : null, fields, reason === "none" ? null : field("act.reason", why, "act.reason.hint"), wrong,
  h("div", { class: "acts" }, h("button", { class: "b", type: "button", onclick: () => close() }, t("act.close")), go));
  const close = box(title, form);
  function complain(words) {
    wrong.hidden = false;
    wrong.textContent = words;
  }
}

/** What the API said against something, all of it. */
export function said_of(error) {
  return error.errors?.length > 1 ? error.errors.map((fault) => fault.detail).join(" · ") : error.message;
}

/** Proves again who it is. */
function stepUp(then) {
  ask({ title: t("act.stepup"), text: t("act.stepup.say"), reason: "none", then, fields: [
    field("act.stepup.code", h("input", { class: "i", name: "code", autocomplete: "one-time-code", inputmode: "numeric" })),
    field("act.stepup.password", h("input", { class: "i", name: "password", type: "password", autocomplete: "current-password", dir: "ltr" })),
  ], act: ({ code, password }) => post("/v1/auth/step-up", code.trim() ? { code: code.trim() } : { password }) });
}

/** Says that something was done, and how the command line does it. */
export function done(title, answer) {
  const line = answer?.cli;
  toast(title, { more: line ? cli(line) : null });
}

/** Says that something was not done, and why. */
export function undone(error) { toast(said_of(error), { tone: "bad" }); }

/** A line of the command line, to be copied. */
export function cli(line) {
  shown(line);
  const code = h("code", { tabindex: 0 }, line);
  const copy = h("button", { class: "b tiny", type: "button", onclick: async () => {
    // Browsers let pages copy over HTTPS only: elsewhere the line is selected, for people to copy.
    const copied = await (navigator.clipboard?.writeText(line) ?? Promise.reject(new Error("no clipboard"))).then(() => true, () => false);
    if (!copied) return getSelection().selectAllChildren(code);
    copy.textContent = t("act.copied");
    say(t("act.copied"));
  } }, t("act.copy"));
  return h("div", { class: "cli", title: t("act.cli") }, code, copy);
}

/** Says something for a while; `more` stands below it, and longer. */
export function toast(words, { tone = "good", more = null } = {}) {
  let place = document.querySelector(".toasts");
  if (!place) { place = h("div", { class: "toasts" }); document.body.append(place); }
  const one = h("div", { class: "toast" }, h("div", { class: "line" }, h("span", { class: `state ${tone} grow` }, words),
    h("button", { class: "b plain tiny", type: "button", "aria-label": t("act.close"), onclick: () => one.remove() }, "✕")), more);
  place.append(one);
  say(words);
  setTimeout(() => { if (!one.matches(":hover, :focus-within")) one.remove(); }, more ? 12000 : 5000);
}

/** What to show instead of what could not be loaded. */
export function trouble(error, again) {
  const key = error.status === 403 ? "none.forbidden" : null;
  return h("div", { class: "sheet none wrong", role: "alert" }, h("strong", t(key ?? "error.title")),
    h("p", key ? t(`${key}.say`) : error.code === "offline" ? t("error.offline") : error.message),
    error.request ? h("p", { class: "small" }, t("error.request", { id: error.request })) : null,
    again && !key ? h("button", { class: "b", type: "button", onclick: again }, t("error.again")) : null);
}

/** Says that there is nothing, and what to do about it. */
export function nothing(key, ...more) {
  return add(h("div", { class: "none" }), [h("strong", t(key)), knows(`${key}.say`) ? h("p", t(`${key}.say`)) : null, more]);
}
