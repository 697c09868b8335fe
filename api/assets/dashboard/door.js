// Signing in.

import { secondStep, signIn } from "./api.js";
import { add, h } from "./dom.js";
import { language, languages, speak, t } from "./i18n.js";
import { field } from "./parts/form.js";

/** The form; `then` is called when somebody has come in. */
export function door(then, error) {
  const place = h("div", { class: "door" });
  show(place, then, error);
  return place;
}

function show(place, then, error, challenge) {
  document.title = `${t("door.title")} · FlatRender`;
  const said = h("p", { class: "ask bad small", role: "alert", hidden: !error }, error ? t("door.wrong", { why: error.message }) : "");
  const inputs = challenge
    ? [field("door.code", h("input", { class: "i mono", name: "code", autocomplete: "one-time-code", inputmode: "numeric", required: true }))]
    : [field("door.email", h("input", { class: "i", name: "email", type: "email", autocomplete: "username", required: true, dir: "ltr" })),
      field("door.password", h("input", { class: "i", name: "password", type: "password", autocomplete: "current-password", required: true, dir: "ltr" })),
      field("door.tenant", h("input", { class: "i", name: "tenant", autocomplete: "organization", dir: "ltr" }), "door.tenant.hint")];
  const go = h("button", { class: "b first", type: "submit" }, t(challenge ? "door.code.go" : "door.go"));
  const form = h("form", { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    go.disabled = true;
    try {
      const more = challenge ? await secondStep(challenge, given.code.trim())
        : await signIn({ email: given.email.trim(), password: given.password, ...(given.tenant.trim() ? { tenant: given.tenant.trim() } : {}) });
      if (more) show(place, then, null, more.challenge);
      else then();
    } catch (refused) {
      said.hidden = false;
      said.textContent = t("door.wrong", { why: refused.code === "offline" ? t("error.offline") : refused.message });
      go.disabled = false;
      go.focus();
    }
  } },
  h("div", { class: "brand" }, h("img", { src: "/dashboard/assets/mark.svg", alt: "" }), "FlatRender"),
  h("h1", t("door.title")), said, inputs, go,
  h("div", { class: "small dim" }, languages.map((name) => h("button", { class: "b plain tiny", type: "button", lang: name, "aria-pressed": String(name === language()), onclick: () => {
    localStorage.setItem("flatrender.language", name);
    speak(name);
    show(place, then, null, challenge);
  } }, name === "fa" ? "فارسی" : "English"))));
  place.replaceChildren();
  add(place, h("main", form));
  form.querySelector("input").focus();
}
