// The keyboard: single keys and pairs such as "g r". Nothing is heard while somebody writes.

const KEY = "flatrender.keys";
const bound = new Map();
let first = null, timer = null;

/** Whether single keys do something: who dictates, or touches keys by accident, turns them off (WCAG 2.1.4). */
export function listens() { return localStorage.getItem(KEY) !== "off"; }

/** Has single keys do something, or nothing. */
export function listen(on) { localStorage.setItem(KEY, on ? "on" : "off"); }

/** Binds a key or a pair; the returned function lets it go. */
export function bind(keys, then) {
  const held = bound.get(keys);
  bound.set(keys, then);
  return () => { if (bound.get(keys) === then) { if (held) bound.set(keys, held); else bound.delete(keys); } };
}

function writes(target) {
  return target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && writes(event.target)) { event.target.blur(); return; }
  if (writes(event.target)) return;
  // A question stands above the page: nothing below it hears. Whoever stands beside it, as on what was just said, leaves it all the same.
  const above = [...document.querySelectorAll("[role=dialog]")].at(-1);
  if (above) {
    if (event.key === "Escape") above.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    return;
  }
  if (event.key.length === 1 && !listens()) return;
  // Keys are where they are, whatever the layout writes: a Persian keyboard has them too.
  const letter = /^Key[A-Z]$/.test(event.code) ? event.code.slice(3).toLowerCase() : event.key;
  const key = event.shiftKey && letter.length === 1 && /[a-z]/.test(letter) ? letter.toUpperCase() : letter;
  const then = bound.get(first ? `${first} ${key}` : key);
  clearTimeout(timer);
  if (!first && [...bound.keys()].some((keys) => keys.startsWith(`${key} `))) {
    first = key;
    timer = setTimeout(() => { first = null; }, 1200);
  } else first = null;
  if (then) { event.preventDefault(); then(event); }
});
