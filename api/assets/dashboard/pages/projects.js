// Projects and their scenes: the pictures there are, and the button that has them made.

import { get, picture, write } from "../api.js";
import { busy, fill, h, ltr } from "../dom.js";
import { language, num, t } from "../i18n.js";
import { done, nothing, trouble, undone } from "../parts/dialog.js";
import { same } from "../parts/lines.js";
import { head, link, meter, state } from "../parts/show.js";
import colours from "./colours.js";

export default function projects(page) {
  const [slug, room, ...rest] = page.rest.split("/");
  if (room === "colours") return colours({ ...page, slug, id: rest[0] ?? null });
  return page.rest ? scenes(page) : all();
}

/** A title in the language of the page, or in any. */
const title = (titles, otherwise) => titles?.[language()] ?? titles?.en ?? Object.values(titles ?? {})[0] ?? otherwise;

function image(url, words) {
  const blank = h("div", { class: "blank" }, words);
  const shown = (src) => h("img", { src, alt: "", loading: "lazy" });
  const path = url && (url.startsWith("/") ? url : new URL(url).pathname);
  if (path?.startsWith("/snap/")) return shown(path);
  if (path) picture(path).then((src) => src && blank.replaceWith(shown(src))).catch(() => {});
  return blank;
}

function all() {
  const place = busy();
  const load = () => get("/v1/templates").then(({ data }) => fill(place, data.length ? h("ul", { class: "cards" }, data.map((one) => h("li", { class: "card" },
    image(one.preview_url, ltr(`${one.width}×${one.height}`)), h("div", { class: "in" }, h("h2", link(`projects/${encodeURIComponent(one.slug)}`, title(one.title, one.slug))),
      h("p", { class: "small dim" }, ltr(one.slug), " · ", t("run.version", { n: one.version }), " · ", ltr(`${one.width}×${one.height}`), " · ", t("time.s", { n: num(one.duration_seconds, 1) })))))) : h("div", { class: "sheet" }, nothing("projects.none")))).catch((error) => fill(place, trouble(error, load)));
  load();
  return { element: h("div", head(t("projects.title"), t("projects.sub")), place) };
}

function scenes({ rest: slug, me }) {
  const place = h("div", { class: "stack" });
  let timer = null, stopped = false, project = null;
  const may = me.rights.includes("manage");

  async function load() {
    clearTimeout(timer);
    try {
      project ??= await get(`/v1/templates/${encodeURIComponent(slug)}`);
      const stills = may ? await get(`/v1/scene-snapshots/${project.project_id}`) : { data: project.scenes.map((one) => ({ ...one, scene_key: one.key, url: one.snapshot_url ?? one.image, job: null })), counts: null };
      if (stopped) return;
      fill(place, view(stills));
      if (stills.counts && stills.counts.queued + stills.counts.running > 0) timer = setTimeout(load, 1000);
    } catch (error) { fill(place, head(slug), trouble(error, load)); }
  }

  const make = (force) => async () => {
    try {
      done(t("projects.make"), await write(same("snapshots_make", { template: slug, force }), "POST", `/v1/scene-snapshots/${project.project_id}`, { force }));
    } catch (error) { undone(error); }
    load();
  };

  function view({ data, counts }) {
    const asked = counts ? counts.queued + counts.running + counts.done + counts.error : 0;
    const under_way = counts && counts.queued + counts.running > 0;
    return [
      head(title(project.title, slug), t("projects.scenes", { n: data.length }),
        link(`projects/${encodeURIComponent(slug)}/colours`, t("colours.title")),
        may ? h("button", { class: "b", type: "button", disabled: under_way, onclick: make(true) }, t("projects.remake")) : null,
        may ? h("button", { class: "b first", type: "button", disabled: under_way || !data.length, data: { act: "make" }, onclick: make(false) }, t("projects.make")) : null),
      asked ? h("div", { class: `ask ${counts.error ? "bad" : under_way ? "" : "good"}`, role: "status" }, h("div", { class: "grow stack" },
        h("p", { class: "say num" }, under_way || counts.error ? t("projects.under", { done: counts.done, total: asked }) : t("projects.done"), counts.error ? ` · ${t("projects.failed", { n: counts.error })}` : ""), under_way ? meter(counts.done + counts.error, asked) : null)) : null,
      data.length ? h("ul", { class: "cards" }, data.map((scene) => h("li", { class: "card" }, image(scene.job?.small_url ?? scene.url, t("projects.nopicture")),
        h("div", { class: "in" }, h("h2", title(scene.title, scene.scene_key)), h("p", { class: "small dim" }, ltr(scene.scene_key)), scene.job && scene.job.status !== "done" ? state(scene.job.status === "error" ? "failed" : scene.job.status) : null,
          scene.job?.error ? h("p", { class: "small" }, ltr(scene.job.error.code), " ", scene.job.error.message) : null)))) : h("div", { class: "sheet" }, nothing("projects.noscenes")),
    ];
  }

  load();
  return { element: place, end() { stopped = true; clearTimeout(timer); } };
}
