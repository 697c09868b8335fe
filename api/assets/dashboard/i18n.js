// Languages: words, numbers, times. A language is a file of messages.

import en from "./messages/en.js";
import fa from "./messages/fa.js";

const LANGUAGES = { en: { words: en, dir: "ltr", locale: "en-GB", begins: 0 }, fa: { words: fa, dir: "rtl", locale: "fa-IR", begins: 5 } };
let now = "en";

/** The languages there are. */
export const languages = Object.keys(LANGUAGES);

/** The language in use. */
export function language() { return now; }

/** Uses a language from now on, and turns the page its way. */
export function speak(name) {
  now = LANGUAGES[name] ? name : "en";
  document.documentElement.lang = now;
  document.documentElement.dir = LANGUAGES[now].dir;
}

/** The message with this key, its {parts} filled in. Numbers are written as the language does. */
export function t(key, parts) {
  let text = LANGUAGES[now].words[key] ?? en[key] ?? key;
  if (typeof text === "object") {
    const form = new Intl.PluralRules(LANGUAGES[now].locale).select(Number(parts?.n ?? 0));
    text = text[form] ?? text.other;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const part = parts?.[name];
    return part === undefined ? whole : typeof part === "number" ? num(part) : String(part);
  });
}

/** Whether there is a message with this key. */
export function knows(key) { return key in LANGUAGES[now].words || key in en; }

/** A word of the API, such as a state, in the language; as it is when nobody has translated it. */
export function word(room, name) { return name && knows(`${room}.${name}`) ? t(`${room}.${name}`) : name ?? ""; }

/** A number. */
export function num(value, digits = 0) {
  return new Intl.NumberFormat(LANGUAGES[now].locale, { maximumFractionDigits: digits }).format(value);
}

/** A text with the digits that programs read: people may write ۰ to ۹, or ٠ to ٩. */
export function latin(text) { return text.replace(/[۰-۹٠-٩]/g, (digit) => String(digit.charCodeAt(0) % 16)); }

/** Digits of a currency behind the point, where there are not two. Source: ISO 4217; rials and tomans are counted whole, as everybody does. */
const DIGITS = { BIF: 0, CLP: 0, DJF: 0, GNF: 0, IRR: 0, IRT: 0, ISK: 0, JPY: 0, KMF: 0, KRW: 0, PYG: 0, RWF: 0, UGX: 0, VND: 0, VUV: 0, XAF: 0, XOF: 0, XPF: 0, BHD: 3, IQD: 3, JOD: 3, KWD: 3, LYD: 3, OMR: 3, TND: 3 };

/** An amount of minor units, with its currency. */
export function money(amount, currency) {
  const digits = DIGITS[currency] ?? 2;
  const whole = new Intl.NumberFormat(LANGUAGES[now].locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(amount / 10 ** digits);
  return `${whole} ${currency}`;
}

/** A number of bytes. */
export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let n = value, at = 0;
  while (n >= 1000 && at < units.length - 1) { n /= 1000; at += 1; }
  return `${num(n, n < 10 && at > 0 ? 1 : 0)} ${units[at]}`;
}

/** A time of day with its date. */
export function moment(text) {
  if (!text) return "";
  return new Intl.DateTimeFormat(LANGUAGES[now].locale, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(text));
}

/** A time of day. */
export function clock(text) {
  return new Intl.DateTimeFormat(LANGUAGES[now].locale, { hour: "2-digit", minute: "2-digit" }).format(new Date(text));
}

/** A day of the week, from Monday, which is 0. */
export function weekday(n) {
  return new Intl.DateTimeFormat(LANGUAGES[now].locale, { weekday: "long", timeZone: "UTC" }).format(new Date(Date.UTC(2024, 0, 1 + n)));
}

/** The days of a week, from the one that it begins with. */
export function week() { return [0, 1, 2, 3, 4, 5, 6].map((n) => (LANGUAGES[now].begins + n) % 7); }

/** A length of time in seconds, at two units: "2 h 5 min". */
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return t("time.ms", { n: num(Math.round(s * 1000)) });
  if (s < 60) return t("time.s", { n: num(s, s < 10 ? 1 : 0) });
  if (s < 3600) return two(Math.floor(s / 60), "time.min", Math.floor(s % 60), "time.s");
  if (s < 86400) return two(Math.floor(s / 3600), "time.h", Math.floor((s % 3600) / 60), "time.min");
  return two(Math.floor(s / 86400), "time.d", Math.floor((s % 86400) / 3600), "time.h");
}

function two(a, unit, b, lower) {
  const first = t(unit, { n: num(a) });
  return b ? `${first} ${t(lower, { n: num(b) })}` : first;
}

/** How long ago a time was, or how far ahead it is; in one unit, so that a list of them stays calm. */
export function ago(text) {
  if (!text) return "";
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  if (seconds < -1) return t("time.in", { span: about(-seconds) });
  return seconds < 2 ? t("time.now") : t("time.ago", { span: about(seconds) });
}

function about(seconds) {
  const [unit, key] = [[86400, "time.d"], [3600, "time.h"], [60, "time.min"], [1, "time.s"]].find(([size]) => seconds >= size) ?? [1, "time.s"];
  return t(key, { n: num(Math.floor(seconds / unit)) });
}

/** How long it took from one time to another, or has until now. */
export function between(from, until) {
  return span(((until ? new Date(until) : new Date()) - new Date(from)) / 1000);
}
