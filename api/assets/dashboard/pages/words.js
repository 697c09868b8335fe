// The words of notifications: ours, and those of one's organisation over them, with a look at how a message would be.

import { get, post, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { language, num, t, word } from "../i18n.js";
import { ask, said_of, trouble } from "../parts/dialog.js";
import { choice, field } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { table, walk } from "../parts/list.js";
import { entitle, head, link, sheet, state } from "../parts/show.js";

const TONGUES = { en: "English", fa: "فارسی" };

export default function words(page) {
  const kind = page.rest.split("/")[1];
  return kind ? one(kind) : list(page);
}

function list({ go }) {
  const place = busy();
  const open = (one) => go(`notifications/words/${one.kind}`);
  const free = walk(place, open);
  const load = () => get("/v1/notification-templates").then(({ data }) => {
    const own = (kind) => data.filter((one) => one.kind === kind && one.version !== null).length;
    const ours = data.filter((one) => one.version === null && one.channel === "email" && one.language === language());
    fill(place, h("div", { class: "sheet" }, table([
      { label: t("words.kind"), cell: (one) => link(`notifications/words/${one.kind}`, ltr(one.kind)) },
      { label: t("notify.category"), cell: (one) => word("category", one.category) },
      { label: t("words.subject"), cell: (one) => h("bdi", { class: "clip" }, one.subject) },
      { label: t("words.own"), end: true, cell: (one) => (own(one.kind) ? num(own(one.kind)) : h("span", { class: "dim" }, "–")) },
    ], ours, { open, label: t("words.title"), key: (one) => one.kind })));
  }).catch((error) => fill(place, trouble(error, load)));
  load();
  return { element: h("div", head(t("words.title"), t("words.sub"), link("notifications", t("nav.notifications"))), place), end: free };
}

/** The words of a kind, by each channel and in each language. */
function one(kind) {
  const place = busy({ class: "stack" }), filters = h("div", { class: "filters" }), editor = h("div", { class: "stack" });
  let all = [], channel = "email", tongue = language();
  entitle(kind, place);

  const load = () => get(`/v1/notification-templates?kind=${encodeURIComponent(kind)}`).then(({ data }) => {
    all = data;
    fill(place,
      h("div", { class: "head" }, h("div", h("h1", ltr(kind, { class: "" })), h("p", { class: "sub" }, word("category", data[0].category))), h("div", { class: "do" }, link("notifications/words", t("words.title")))),
      filters, editor);
    show();
  }).catch((error) => fill(place, head(kind), trouble(error, load)));

  function show() {
    // Their own come first. What is chosen is what is shown: a channel may know fewer languages than another.
    const now = all.find((one) => one.channel === channel && one.language === tongue) ?? all.find((one) => one.channel === channel) ?? all[0];
    ({ channel, language: tongue } = now);
    const some = (name, among) => [...new Set(among.map((one) => one[name]))];
    fill(filters,
      choice("channel", some("channel", all).map((name) => [name, word("channel", name)]), channel, (name) => { channel = name; show(); }, t("notify.channel")),
      choice("language", some("language", all.filter((one) => one.channel === channel)).map((name) => [name, TONGUES[name] ?? name]), tongue, (name) => { tongue = name; show(); }, t("shell.language")));
    const path = `/v1/notification-templates/${encodeURIComponent(kind)}/${now.channel}/${encodeURIComponent(now.language)}`;
    const said = { lang: now.language, dir: now.language.startsWith("fa") ? "rtl" : "ltr" };
    const subject = h("input", { class: "i", name: "subject", maxlength: 300, value: now.subject, autocomplete: "off", ...said });
    const body = h("textarea", { class: "i", name: "body", value: now.body, ...said });
    const preview = busy({ class: "in" });
    const wrong = h("p", { class: "ask bad small", role: "alert", hidden: true });
    const look = () => post(`${path}/preview`, { subject: subject.value, body: body.value }).then((seen) => {
      wrong.hidden = true;
      fill(preview, h("div", { class: "letter", lang: seen.language, dir: seen.rtl ? "rtl" : "ltr" }, h("p", h("strong", seen.subject)), h("p", seen.text)));
    }).catch((error) => {
      wrong.hidden = false;
      wrong.textContent = said_of(error);
      preview.removeAttribute("aria-busy");
    });
    const of = { kind, channel: now.channel, language: now.language };
    const keep = () => ask({ title: t("words.keep"), text: t("words.keep.say"), reason: "none", then: load,
      act: () => write(same("words_say", { ...of, subject: subject.value, body: body.value }), "PUT", path, { subject: subject.value, body: body.value }) });
    const ours = () => ask({ title: t("words.ours"), text: t("words.ours.say"), reason: "none", then: load,
      act: () => write(same("words_unsay", of), "DELETE", path) });
    fill(editor, h("div", { class: "cols" },
      sheet(t("words.words"), now.version === null ? t("words.are.ours") : state("active", t("run.version", { n: now.version })), h("div", { class: "in stack" },
        field("words.subject", subject), field("words.body", body, "words.body.hint"),
        h("p", { class: "small dim" }, t("words.names"), " ", now.names.map((name) => [h("span", { class: "tag" }, ltr(`{{${name}}}`)), " "])), wrong,
        h("div", { class: "line" }, h("button", { class: "b", type: "button", data: { act: "look" }, onclick: look }, t("words.look")),
          h("button", { class: "b first", type: "button", data: { act: "keep" }, onclick: keep }, t("words.keep")),
          now.version === null ? null : h("button", { class: "b bad", type: "button", onclick: ours }, t("words.ours"))))),
      sheet(t("words.preview"), word("channel", now.channel), preview)));
    look();
  }

  load();
  return { element: place };
}
