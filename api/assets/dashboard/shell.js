// The frame: where one can go, who one is, how it looks; and which page stands in it.

import { signOut } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { language, languages, speak, t } from "./i18n.js";
import { bind, listen, listens } from "./keys.js";
import { box, nothing, trouble } from "./parts/dialog.js";
import { link } from "./parts/show.js";
import { follow } from "./stream.js";
import { dress, theme } from "./theme.js";

/** Pages in their groups: name, key behind g, what it takes, where it is. */
const PAGES = [
  ["work", [["now", "n"], ["failures", "f"], ["runs", "r"], ["dead", "d"], ["bulk", "b"]]],
  ["farm", [["queues", "q", "operate"], ["nodes", "o", "operate"], ["schedules", "s", "operate"], ["projects", "p", "own"], ["versions", "v", "operate"]]],
  ["record", [["audit", "a"], ["tenants", "t"], ["webhooks", "w", "own"], ["notifications", "e", "keep"], ["payments", "m", "own"]]],
];
/** What a page takes to be gone to. */
const NEEDS = {
  operate: (role) => role.wide,
  own: (_, rights) => rights.includes("read") || rights.includes("manage"),
  keep: (_, rights) => rights.includes("manage"),
};
const NOW = /^\/dashboard\/?([^/]*)\/?(.*)$/;

/** Who somebody is to the dashboard. */
function roleOf(me) {
  const has = (right) => me.rights.includes(right);
  if (has("administer")) return { name: "Admin", wide: true, rank: 3 };
  if (has("operate")) return { name: "Operator", wide: true, rank: 2 };
  if (has("observe")) return { name: "Viewer", wide: true, rank: 0 };
  return has("manage") ? { name: "Keeper", wide: false, rank: 1 } : { name: "Viewer", wide: false, rank: 0 };
}

/** Builds the frame into `app`. */
export function frame(app, me, restart) {
  const role = roleOf(me);
  const may = (needs) => !needs || NEEDS[needs](role, me.rights);
  const main = h("main", { id: "main", tabindex: -1 });
  const live = h("span", { class: "live", role: "status" }, t("shell.lost"));
  const listeners = new Set();
  let page = null, shown = null, begun = false;

  const go = (path, replace) => {
    history[replace ? "replaceState" : "pushState"](null, "", `/dashboard/${path}`);
    show();
  };

  const context = {
    me, role, go,
    /** Hears of what changes while the page stands. */
    hear(kind, then) {
      const one = { kind, then };
      listeners.add(one);
      return () => listeners.delete(one);
    },
  };
  const stop = follow({}, (kind, data) => {
    if (kind === "now") context.now = data;
    listeners.forEach((one) => { if (one.kind === kind) one.then(data); });
  }, (on) => {
    if (live.dataset.on === String(on)) return;
    live.dataset.on = String(on);
    live.textContent = t(on ? "shell.live" : "shell.lost");
  });

  async function show() {
    const [, name, rest] = NOW.exec(location.pathname) ?? [];
    const wanted = `${location.pathname}${location.search}`;
    if (wanted === shown) return;
    shown = wanted;
    page?.end?.();
    page = null;
    const room = name || "now";
    app.querySelectorAll(".nav a").forEach((a) => a.toggleAttribute("aria-current", a.dataset.page === room));
    app.querySelectorAll(".nav a[aria-current]").forEach((a) => a.setAttribute("aria-current", "page"));
    const known = PAGES.flatMap(([, all]) => all).find(([one]) => one === room);
    if (!known || !may(known[2])) return fill(main, nothing(known ? "none.forbidden" : "none.page"));
    try {
      const file = await import(`./pages/${room}.js`);
      if (shown !== wanted) return;
      const query = Object.fromEntries(new URLSearchParams(location.search));
      page = file.default({ ...context, get now() { return context.now; }, rest: decodeURIComponent(rest ?? ""), query });
      fill(main, page.element);
      // Whoever came here by a key goes on from the page, not from the top of the frame.
      if (begun && document.activeElement === document.body) main.focus({ preventScroll: true });
      begun = true;
      window.scrollTo(0, 0);
    } catch (error) {
      fill(main, trouble(error, () => { shown = null; show(); }));
    }
  }

  const free = [
    ...PAGES.flatMap(([, all]) => all.filter(([, , needs]) => may(needs)).map(([name, key]) => bind(`g ${key}`, () => go(name)))),
    bind("?", help), bind("/", () => main.querySelector("[data-find]")?.focus()),
    bind("R", () => { shown = null; show(); }),
    bind("T", () => { dress(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); again(); }),
    bind("L", () => tongue(languages[(languages.indexOf(language()) + 1) % languages.length])),
    bind("Escape", () => { if (location.pathname.split("/").length > 3) history.back(); }),
  ];
  const click = (event) => {
    const a = event.target.closest?.("a[href^='/dashboard']");
    if (!a || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", a.getAttribute("href"));
    show();
    if (a.closest(".nav")) main.focus({ preventScroll: true });
  };
  document.addEventListener("click", click);
  window.addEventListener("popstate", show);

  function end() {
    page?.end?.();
    stop();
    free.forEach((let_go) => let_go());
    document.removeEventListener("click", click);
    window.removeEventListener("popstate", show);
  }

  function again() { restart(); }

  function tongue(name) {
    localStorage.setItem("flatrender.language", name);
    speak(name);
    again();
  }

  function help() {
    const single = h("input", { type: "checkbox", checked: listens(), onchange: () => listen(single.checked) });
    const keys = (title, all) => h("div", h("h3", title), h("dl", { class: "pairs" }, all.map(([key, words]) => [h("dt", key.split(" ").map((one) => [h("kbd", one), " "])), h("dd", words)])));
    box(t("keys.title"), h("div", { class: "two-cols" }, [
      keys(t("keys.list"), [["j", t("keys.down")], ["k", t("keys.up")], ["Enter", t("keys.open")], ["/", t("keys.find")]]),
      keys(t("keys.go"), PAGES.flatMap(([, all]) => all.filter(([, , needs]) => may(needs)).map(([name, key]) => [`g ${key}`, t(`nav.${name}`)]))),
      keys(t("keys.any"), [["?", t("keys.help")], ["R", t("keys.refresh")], ["T", t("keys.theme")], ["L", t("keys.language")], ["Esc", t("keys.back")]]),
      h("label", { class: "line small" }, single, t("keys.single")),
    ]));
  }

  fill(app, h("div", { class: "frame" },
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, t("shell.skip")),
    h("div", { class: "side" },
      h("div", { class: "brand" }, h("img", { src: "/dashboard/assets/mark.svg", alt: "" }), "FlatRender"),
      h("nav", { "aria-label": t("nav.label"), class: "stack-s" }, PAGES.map(([group, all]) => {
        const mine = all.filter(([, , needs]) => may(needs));
        return mine.length ? h("div", { class: "nav" }, h("div", { class: "nav-title" }, t(`nav.${group}`)), mine.map(([name, key]) => {
          const a = link(name, icon(...ICONS[name]), h("span", t(`nav.${name}`)), h("kbd", { "aria-hidden": "true" }, `g ${key}`));
          a.dataset.page = name;
          return a;
        })) : null;
      })),
      h("div", { class: "side-foot" }, live,
        h("div", { class: "clip", title: me.email }, me.display_name || me.email, h("div", { class: "small dim" }, t(`role.${role.name}`))),
        h("div", { class: "line" },
          languages.map((name) => h("button", { class: "b plain tiny", type: "button", lang: name, "aria-pressed": String(name === language()), onclick: () => tongue(name) }, name === "fa" ? "فارسی" : "English"))),
        h("div", { class: "line" },
          h("button", { class: "b plain tiny", type: "button", onclick: () => { const all = ["auto", "light", "dark"]; dress(all[(all.indexOf(theme()) + 1) % 3]); again(); } }, t("shell.theme"), ": ", t(`theme.${theme()}`)),
          h("button", { class: "b plain tiny", type: "button", onclick: help }, t("shell.keys")),
          h("button", { class: "b plain tiny", type: "button", onclick: signOut }, t("shell.signout"))))),
    main));
  show();
  return { end };
}

const ICONS = {
  now: ["M2 9h3l2-5 3 9 2-4h2"], failures: ["M8 2 14.5 13.5h-13z", "M8 6.5v3.2M8 11.6v.1"], runs: ["M3 4h10M3 8h10M3 12h6"],
  dead: ["M2 4.5h12v7.5H2z", "m2 5 6 4.5L14 5"], bulk: ["M2 3h5v5H2zM9 3h5v5H9zM2 10.5h5M9 10.5h5M2 13h5M9 13h5"], queues: ["M2 4h9M2 8h12M2 12h6"],
  nodes: ["M2.5 3h11v4h-11zM2.5 9h11v4h-11z", "M5 5v.1M5 11v.1"], schedules: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 5v3.2l2 1.3"],
  projects: ["M2 3.5h12v9H2z", "M5 3.5v9M11 3.5v9M2 8h12"], versions: ["M5 3v10M5 5c0 4 6 2 6 6", "M11 11v2"],
  audit: ["M4 2h8v12H4z", "M6 5h4M6 8h4M6 11h2"], tenants: ["M3 14V4l5-2 5 2v10", "M6 7h.1M10 7h.1M6 10h.1M10 10h.1"], payments: ["M1.5 3.5h13v9h-13z", "M1.5 6.5h13M4 10h3"], notifications: ["M2 3.5h12v7H8l-3.5 3v-3H2z", "M5 7h.1M8 7h.1M11 7h.1"], webhooks: ["M3 6a5 5 0 0 1 10 0c0 4 1.5 5 1.5 5h-13S3 10 3 6z", "M6.5 13.5a1.6 1.6 0 0 0 3 0"],
};
