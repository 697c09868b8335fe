// Tables that are gone through with the keyboard, and lists that are loaded page by page.

import { at, get } from "../api.js";
import { busy, fill, h } from "../dom.js";
import { t } from "../i18n.js";
import { bind } from "../keys.js";
import { trouble } from "./dialog.js";

/** Pages without a row that are passed over by themselves: each has looked at some thousand rows of others. */
const EMPTY = 20;

/** A table. `columns`: `{ label, cell(row), class, end }`; `open(row)` is what Enter and a click do. */
export function table(columns, rows, { open, label, key } = {}) {
  const body = h("tbody", rows.map((row) => {
    const line = h("tr", { tabindex: open ? -1 : null, "data-open": open ? "" : null, onclick: open && ((event) => {
      if (!event.target.closest("a, button, input, summary")) open(row);
    }) }, columns.map((column) => h("td", { class: [column.class, column.end && "end"].filter(Boolean).join(" ") || null }, column.cell(row))));
    line.row = row;
    if (key) line.dataset.key = key(row);
    return line;
  }));
  return h("div", { class: "over" }, h("table", { class: "rows", "aria-label": label ?? null },
    h("thead", h("tr", columns.map((column) => h("th", { scope: "col", class: column.end ? "end" : null }, column.label || h("span", { class: "unseen" }, t("list.actions")))))), body));
}

/** Binds j, k and Enter to the rows within `place`. */
export function walk(place, open) {
  const lines = () => [...place.querySelectorAll("tr[data-open]")];
  const step = (by) => () => {
    const all = lines();
    const from = all.findIndex((line) => line.classList.contains("at"));
    const next = all[Math.max(0, Math.min(all.length - 1, from + by))];
    all[from]?.classList.remove("at");
    if (!next) return;
    next.classList.add("at");
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  const let_go = [bind("j", step(1)), bind("k", step(-1)), bind("Enter", (event) => {
    const line = event.target.closest?.("tr[data-open]") ?? place.querySelector("tr.at");
    if (event.target.closest?.("a, button")) return event.target.closest("a, button").click();
    if (line) open(line.row);
  })];
  return () => let_go.forEach((free) => free());
}

/** What narrows a list whose address is the view, at `room`: `set(change)` goes to another view, `text(name, label)` is a field for a part of it. */
export function narrow({ query, go }, room) {
  const set = (change) => {
    const next = Object.entries({ ...query, ...change }).filter(([, value]) => value);
    go(next.length ? `${room}?${new URLSearchParams(next)}` : room, true);
  };
  const text = (name, label, { first, wide } = {}) => h("input", { class: `i mono${wide ? " wide" : ""}`, value: query[name] ?? "", placeholder: label, "aria-label": label, dir: "ltr", "data-find": first ? "" : null,
    onchange: (event) => set({ [name]: event.target.value.trim() }) });
  const clear = () => (Object.keys(query).length ? h("button", { class: "b plain", type: "button", onclick: () => go(room, true) }, t("runs.clear")) : null);
  return { set, text, clear };
}

/** A list that is loaded page by page into a sheet. Answers its element, `reload()`, `renew()` and `end()`. A list that jumps while somebody
    reads it helps nobody: what renews it by itself does so only while its beginning is all that shows. */
export function pages({ path, query, columns, open, empty, label, limit = 50, key }) {
  const place = busy({ class: "sheet" });
  const stop = new AbortController();
  const free = open ? walk(place, open) : () => {};
  let rows = [], next = null, more = false, turn = 0, under_way = false;

  /** Looks anew, or goes on; whoever looks later is the one that is shown. */
  async function load(fresh) {
    const mine = (turn += 1);
    let loaded = fresh ? [] : rows, from = fresh ? null : next, page;
    under_way = true;
    try {
      for (let passed = 0; passed <= EMPTY; passed += 1) {
        page = await get(at(path, { ...query, limit, starting_after: from }), stop.signal);
        if (mine !== turn) return;
        loaded = loaded.concat(page.data);
        from = page.next_cursor;
        if (page.data.length || !page.has_more) break;
      }
      [rows, next, more, under_way] = [loaded, from, page.has_more, false];
      show();
    } catch (error) {
      if (mine !== turn) return;
      under_way = false;
      if (error.name !== "AbortError") fill(place, trouble(error, () => load(true)));
    }
  }

  function show() {
    const at_row = place.querySelector("tr.at")?.dataset.key;
    if (!rows.length && !more) return fill(place, empty());
    fill(place, table(columns, rows, { open, label, key }), h("div", { class: "foot" },
      h("span", { class: "grow num" }, t("list.count", { n: rows.length }), more ? "" : ` · ${t("list.end")}`, more && !rows.length ? ` · ${t("list.sparse")}` : ""),
      more ? h("button", { class: "b", type: "button", onclick: () => load(false) }, t("list.more")) : null));
    if (at_row) place.querySelector(`tr[data-key="${CSS.escape(at_row)}"]`)?.classList.add("at");
  }

  load(true);
  return { element: place, reload: () => load(true), renew() { if (!under_way && window.scrollY < 80 && rows.length <= limit) load(true); }, end() { stop.abort(); free(); } };
}
