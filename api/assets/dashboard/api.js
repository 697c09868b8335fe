// The API, with the tokens of whoever is signed in.

import { current, endAll, keep, renew, spent, whenEnded } from "./session.js";

let renewing = null;
let left = () => {};
whenEnded(() => left());

/** A refusal of the API: `code` is stable, `message` is for people, `errors` names the fields. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem?.code ?? "http";
    this.errors = problem?.errors ?? [];
    this.request = problem?.instance ?? "";
  }
}

/** Whether somebody is signed in. */
export function signedIn() { return current() !== null; }

/** Calls this when the session has ended. */
export function whenSignedOut(then) { left = then; }

/** Signs in; answers `{ challenge, factors }` when there is a second step. */
export async function signIn(credentials) { return enter(await bare("POST", "/v1/auth/sign-in", credentials)); }

/** The second step. */
export async function secondStep(challenge, code) { return enter(await bare("POST", "/v1/auth/second-step", { challenge, code })); }

function enter(answer) {
  if (answer.object !== "tokens") return answer;
  keep(tokens(answer));
  return null;
}

const tokens = (answer) => ({ access: answer.access_token, refresh: answer.refresh_token, until: Date.now() + answer.expires_in * 1000 });

/** Signs out. */
export async function signOut() {
  await call("POST", "/v1/auth/sign-out", {}).catch(() => {});
  endAll();
  left();
}

/** An answer that is no refusal. */
async function send(method, path, { body, token, signal, accept }) {
  const headers = { accept };
  const file = body instanceof Blob;
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = file ? "application/octet-stream" : "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === undefined || file ? body : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { code: "offline", detail: error.message });
  }
  if (!answer.ok) throw new Refused(answer.status, await read_json(answer));
  return answer;
}

async function read_json(answer) {
  const text = await answer.text();
  try { return text ? JSON.parse(text) : null; } catch { return { detail: text.slice(0, 200) }; }
}

async function bare(method, path, body, token, signal) {
  return read_json(await send(method, path, { body, token, signal, accept: "application/json" }));
}

/** A token that is good for a while yet. */
export async function token() {
  if (!current()) return nobody();
  if (Date.now() > current().until - 30000) {
    renewing ??= renew((refresh_token) => bare("POST", "/v1/auth/refresh", { refresh_token }).then(tokens)).finally(() => { renewing = null; });
    try { await renewing; } catch (error) {
      if (error.status === 401) { keep(null); left(); }
      throw error;
    }
  }
  return current()?.access ?? nobody();
}

function nobody() {
  left();
  throw new Refused(401, { code: "auth.missing" });
}

/** Asks with the session; once more with new tokens when they are no longer good. */
async function within(ask) {
  const used = await token();
  try {
    return await ask(used);
  } catch (error) {
    if (error.status !== 401 || !current()) throw error;
    spent(used);
    return ask(await token());
  }
}

/** A request with the session, its body JSON or a file. */
export const call = (method, path, body, signal) => within((token) => bare(method, path, body, token, signal));

/** What is at a path. */
export const get = (path, signal) => call("GET", path, undefined, signal);
/** Does something. */
export const post = (path, body) => call("POST", path, body);

/** Milliseconds until somebody is shown how the command line does what was done. */
const SOON = 1000;
const owed = new Set();

/** Does what the command line does as well: `line` says how, and comes with the answer, to be shown. Without one nothing is done. */
export async function write(line, method, path, body) {
  if (!line) throw new Error(`nothing on the command line does ${method} ${path}`);
  return owes({ ...await call(method, path, body), cli: line });
}

/** The same where the API says how. */
export const acted = async (path, body) => owes(await post(path, body));

function owes(answer) {
  owed.add(answer.cli);
  setTimeout(() => { if (owed.delete(answer.cli)) console.error(`nobody was shown how the command line does it: ${answer.cli}`); }, SOON);
  return answer;
}

/** Notes that a line is shown. */
export function shown(line) { owed.delete(line); }

/** A picture behind the session, as an address for an image; none when there is none. */
export async function picture(path) {
  try {
    return URL.createObjectURL(await within(async (token) => (await send("GET", path, { token, accept: "image/*, */*" })).blob()));
  } catch (error) {
    if (error.status) return null;
    throw error;
  }
}

/** A text behind the session, such as an SVG. */
export const text = (path, signal) => within(async (token) => (await send("GET", path, { token, signal, accept: "*/*" })).text());

/** A path with these parameters; empty ones are left out. */
export function at(path, parameters) {
  const given = Object.entries(parameters ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
