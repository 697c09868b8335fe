// Pictures of a template that are traced to SVG, and their colours: changed here in the browser, without a render and without a request.

import { at, call, get, text, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { num, t } from "../i18n.js";
import { ask, done, nothing, said_of, trouble, undone } from "../parts/dialog.js";
import { choice } from "../parts/form.js";
import { same } from "../parts/lines.js";
import { table } from "../parts/list.js";
import { head, link, sheet, size, when } from "../parts/show.js";
import { drawing, recoloured, swatches } from "../parts/traced.js";

export default function colours({ slug, id, me, go }) {
  const path = `/v1/templates/${encodeURIComponent(slug)}/svg-previews`;
  const here = `projects/${encodeURIComponent(slug)}/colours`;
  const may = me.rights.includes("render");
  const drop = may ? busy() : null, editor = h("div"), list = busy();
  let shown = null;

  const load = () => get(path).then(({ data }) => {
    fill(list, sheet(t("colours.all"), num(data.length), data.length ? rows(data, here) : nothing("colours.none")));
    const wanted = data.find((one) => one.id === id) ?? data[0] ?? null;
    if (wanted?.id !== shown) show(wanted);
  }).catch((error) => fill(list, trouble(error, load)));

  function show(one) {
    shown = one?.id ?? null;
    if (!one) return fill(editor);
    editor.setAttribute("aria-busy", "true");
    text(one.url).then((svg) => fill(editor, edit(one, svg, { slug, path, may, then: load, gone }))).catch((error) => fill(editor, trouble(error, () => show(one))));
  }

  const gone = () => {
    if (id) return go(here, true);
    shown = null;
    load();
  };

  if (may) get(`/v1/templates/${encodeURIComponent(slug)}`).then((template) => fill(drop, place_of(slug, path, template.scenes, (made) => (made.id === shown ? load() : go(`${here}/${made.id}`, true))))).catch(() => fill(drop));
  load();
  return { element: h("div", { class: "stack" }, head(t("colours.title"), t("colours.sub"), link(`projects/${encodeURIComponent(slug)}`, ltr(slug))), drop, editor, list) };
}

/** Where a picture is dropped, or chosen. */
function place_of(slug, path, scenes, then) {
  const said = h("p", { class: "small", role: "status" });
  const wrong = h("p", { class: "ask bad small", role: "alert", hidden: true });
  const scene = choice("scene", [["", t("colours.whole")], ...scenes.map((one) => [one.key, one.key])], "", null, t("colours.of"));
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", "aria-label": t("colours.choose"), onchange: () => take(input.files[0]) });
  const place = h("div", { class: "drop", ondragover: over(true), ondragenter: over(true), ondragleave: over(false), ondrop: (event) => {
    over(false)(event);
    take(event.dataTransfer.files[0]);
  } }, h("p", { class: "say" }, t("colours.drop")), h("div", { class: "line" }, input, scene), said);

  function over(on) {
    return (event) => {
      event.preventDefault();
      if (on || !place.contains(event.relatedTarget)) place.toggleAttribute("data-over", on);
    };
  }

  async function take(file) {
    if (!file) return;
    wrong.hidden = true;
    said.textContent = t("colours.tracing", { name: file.name });
    input.disabled = true;
    try {
      const { id } = await call("POST", at("/v1/files", { name: file.name }), file);
      const made = await write(same("traced_add", { template: slug, file: file.name, scene: scene.value }), "POST", path, { file_id: id, ...(scene.value ? { scene: scene.value } : {}) }).catch(async (error) => {
        // Nobody looks for what was sent here among their files. The template may be another's, too: the API alone knows.
        if (error.status) await call("POST", `/v1/files/${id}/trash`).catch(() => {});
        throw error;
      });
      done(t("colours.traced"), made);
      then(made);
    } catch (error) {
      wrong.hidden = false;
      wrong.textContent = said_of(error);
    }
    said.textContent = "";
    input.disabled = false;
    input.value = "";
    if (document.activeElement === document.body) input.focus({ preventScroll: true });
  }

  return h("div", { class: "stack" }, place, wrong);
}

function rows(data, here) {
  return table([
    { label: t("colours.picture"), cell: (one) => link(`${here}/${one.id}`, one.scene ? ltr(one.scene) : t("colours.whole")) },
    { label: t("colours.slots"), cell: (one) => [swatches(one.slots), " ", h("span", { class: "small dim num" }, num(one.slots.length))] },
    { label: t("film.size"), cell: (one) => ltr(`${one.width} × ${one.height}`) },
    { label: t("colours.bytes"), end: true, cell: (one) => size(one.size_bytes) },
    { label: t("bulk.made"), end: true, cell: (one) => when(one.created_at) },
  ], data, { label: t("colours.all"), key: (one) => one.id });
}

/** The picture, and its colours beside it: each changes it as soon as it is moved. */
function edit(one, svg, { slug, path, may, then, gone }) {
  const drawn = drawing(svg, one.scene ?? t("colours.whole"));
  if (!drawn) return nothing("colours.odd");
  const colors = new Map(one.slots.map((slot) => [slot.id, slot.color]));
  const save = h("a", { class: "b", download: `${one.scene ?? "picture"}.svg`, onclick: () => {
    URL.revokeObjectURL(save.href);
    save.href = URL.createObjectURL(recoloured(svg, colors));
  }, href: "#" }, t("colours.save"));
  const inputs = one.slots.map((slot, n) => row(slot, n));

  function row(slot, n) {
    const name = () => slot.label ?? t("colours.nth", { n: n + 1 });
    const code = h("bdi", { class: "mono small", dir: "ltr" }, slot.color);
    const input = h("input", { type: "color", value: slot.color, "aria-label": name(), data: { slot: slot.id }, oninput: () => paint(input.value) });
    const label = h("input", { class: "i", name: slot.id, value: slot.label ?? "", maxlength: 100, dir: "auto", placeholder: t("colours.nth", { n: n + 1 }), "aria-label": t("colours.name", { n: n + 1 }), disabled: !may, autocomplete: "off" });
    const paint = (color) => {
      colors.set(slot.id, color);
      input.value = color;
      code.textContent = color;
      drawn.paint(slot.id, color);
    };
    return { slot, label, named: () => input.setAttribute("aria-label", name()), reset: () => paint(slot.color), element: h("li", input, code, label, h("span", { class: "small dim num" }, `${num(slot.share * 100)} %`)) };
  }

  const keep = async () => {
    const changed = inputs.filter(({ slot, label }) => label.value.trim() !== (slot.label ?? ""));
    if (!changed.length) return done(t("colours.same"));
    const said = changed.map(({ slot, label }) => [slot.id, label.value.trim()]);
    try {
      const kept = await write(same("traced_name", { template: slug, picture: one.id, names: said.map((pair) => pair.join("=")) }), "PATCH", `${path}/${one.id}`, { labels: Object.fromEntries(said.map(([id, label]) => [id, label || null])) });
      changed.forEach(({ slot, label, named }) => {
        slot.label = label.value.trim() || null;
        named();
      });
      done(t("colours.kept"), kept);
      then();
    } catch (error) { undone(error); }
  };
  const remove = () => ask({ title: t("colours.remove"), text: t("colours.remove.say"), reason: "none", danger: true, then: gone,
    act: () => write(same("traced_remove", { template: slug, picture: one.id }), "DELETE", `${path}/${one.id}`) });
  return sheet(one.scene ?? t("colours.whole"), t("colours.free"), h("div", { class: "in colours" }, drawn.element,
    h("div", { class: "stack" }, h("ul", { class: "slots" }, inputs.map(({ element }) => element)),
      h("div", { class: "line" }, save, h("button", { class: "b", type: "button", data: { act: "reset" }, onclick: () => inputs.forEach(({ reset }) => reset()) }, t("colours.reset")),
        may ? h("button", { class: "b", type: "button", data: { act: "keep" }, onclick: keep }, t("colours.keep")) : null,
        may ? h("button", { class: "b bad", type: "button", onclick: remove }, t("colours.remove")) : null))));
}
