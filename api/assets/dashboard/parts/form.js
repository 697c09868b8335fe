// Fields of forms.

import { h } from "../dom.js";
import { t } from "../i18n.js";

let count = 0;

/** A field with its label, and what helps to fill it in. */
export function field(label, input, hint) {
  count += 1;
  input.id ||= `f${count}`;
  const help = hint ? h("p", { class: "hint", id: `${input.id}-hint` }, t(hint)) : null;
  if (help) input.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, t(label)), input, help);
}

/** Something that is so, or not; its value is `on` or absent. */
export function tick(label, name, on) {
  return h("label", { class: "line small" }, h("input", { type: "checkbox", name, checked: on }), t(label));
}

/** A choice out of some: `[value, words]`. */
export function choice(name, options, value, onchange, label) {
  const select = h("select", { class: "i", name, "aria-label": label, onchange: () => onchange?.(select.value) },
    options.map(([key, words]) => h("option", { value: key, selected: key === value }, words)));
  select.value = value ?? "";
  return select;
}

/** Buttons of which one is pressed. */
export function pick(label, options, value, onpick) {
  return h("div", { class: "pick", role: "group", "aria-label": label }, options.map(([key, words]) =>
    h("button", { type: "button", "aria-pressed": String(key === value), onclick: () => onpick(key) }, words)));
}
