// The tokens of whoever is signed in. They are kept for this tab only, and end with it. A tab that was duplicated has the same, and a
// refresh token counts once: such tabs take turns, and tell one another what came of it. Nobody else hears it.

const KEY = "flatrender.session";
/** Milliseconds that another tab may take to answer. */
const LATE = 200;
/** The same of one that says that it is about to have the next tokens. */
const BUSY = 5000;
/** Tokens that are remembered in whose place others have come. */
const MOST = 20;

const tabs = new BroadcastChannel(KEY);
let session = read();
let formerly = [];
let ended = () => {};
let renewing = null;
let waits = 0;

function read() {
  try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; }
}

/** `{ access, refresh, until }` of whoever is signed in; null when nobody is. */
export const current = () => session;

/** Signs in, or out. */
export function keep(next) {
  session = next;
  if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
  else sessionStorage.removeItem(KEY);
}

/** Calls this when another tab has ended the session. */
export function whenEnded(then) { ended = then; }

/** An access token that is good no more. */
export function spent(access) { if (session?.access === access) session.until = 0; }

/** Ends the session in the tabs that have the same. */
export function endAll() {
  if (session) tabs.postMessage({ over: session.refresh });
  keep(null);
}

/** Has `ask(refresh)` answer the next session, unless another tab has it already. One tab at a time. */
export async function renew(ask) {
  const old = session.refresh;
  await inTurn(async () => {
    if (session?.refresh !== old || await anotherHas(old)) return;
    renewing = old;
    tabs.postMessage({ busy: old });
    try { succeed([...formerly, old], await ask(old)); } finally { renewing = null; }
    tabs.postMessage({ insteadOf: formerly, session });
  });
}

/** Browsers have locks over HTTPS only: elsewhere chance keeps tabs apart, and each says when it has begun. */
function inTurn(work) {
  return navigator.locks ? navigator.locks.request(KEY, work) : pause(Math.random() * LATE).then(work);
}

async function anotherHas(old) {
  waits = Date.now() + LATE;
  tabs.postMessage({ ask: old });
  while (session?.refresh === old && Date.now() < waits) await pause(10);
  return session?.refresh !== old;
}

function succeed(insteadOf, next) {
  formerly = insteadOf.slice(-MOST);
  keep(next);
}

tabs.addEventListener("message", ({ data }) => {
  if (!session) return;
  if (formerly.includes(data.ask)) tabs.postMessage({ insteadOf: formerly, session });
  if (data.ask === renewing) tabs.postMessage({ busy: renewing });
  if (data.busy === session.refresh) waits = Date.now() + BUSY;
  if (data.insteadOf?.includes(session.refresh)) succeed(data.insteadOf, data.session);
  if (data.over === session.refresh) { keep(null); ended(); }
});

const pause = (ms) => new Promise((over) => { setTimeout(over, ms); });
