// Server-sent events with a token, which EventSource cannot send. Comes back by itself, and says where it was.

import { at, token } from "./api.js";
import { spent } from "./session.js";

const PAUSES = [500, 1000, 2000, 5000, 10000];
/** Deeds that are remembered: those of late are told again to whoever comes back. */
const KNOWN = 1000;

/**
 * Follows what changes. `hear(kind, data)` is called for each event, `stand(on)` when the stream stands or is lost. A page that nobody sees,
 * in another tab or kept for the way back, lets go of its connection: browsers open six to a server (HTTP/1.1), for all pages together.
 */
export function follow(parameters, hear, stand) {
  let over = false, connection = null, last = null, tries = 0;
  const known = new Set();
  const isKnown = (id) => {
    if (known.has(id)) return true;
    known.add(id);
    if (known.size > KNOWN) known.delete(known.values().next().value);
    return false;
  };
  const letGo = () => { if (document.hidden) connection?.abort(); };
  document.addEventListener("visibilitychange", letGo);
  (async () => {
    while (!over) {
      if (document.hidden) {
        await new Promise((seen) => { document.addEventListener("visibilitychange", seen, { once: true }); });
        tries = 0;
        continue;
      }
      connection = new AbortController();
      try {
        const used = await token();
        const headers = { accept: "text/event-stream", authorization: `Bearer ${used}` };
        if (last !== null) headers["last-event-id"] = last;
        const answer = await fetch(at("/v1/operate/events", parameters), { headers, signal: connection.signal });
        if (answer.status === 401) spent(used);
        if (!answer.ok) throw new Error(String(answer.status));
        stand(true);
        tries = 0;
        await read(answer.body, (event) => {
          if (event.id) last = event.id;
          const data = event.data && JSON.parse(event.data);
          if (data && !(event.kind === "deed" && isKnown(data.id))) hear(event.kind, data);
        });
      } catch (error) {
        if (over) return;
        if (document.hidden) continue;
        console.debug("the stream was lost", error);
      }
      stand(false);
      await new Promise((again) => { setTimeout(again, PAUSES[Math.min(tries, PAUSES.length - 1)] * (0.75 + Math.random() / 2)); });
      tries += 1;
    }
  })();
  return () => {
    over = true;
    document.removeEventListener("visibilitychange", letGo);
    connection?.abort();
  };
}

async function read(body, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = { kind: "message", id: "", data: "" };
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        const name = line.slice(0, colon), rest = line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") event.kind = rest;
        if (name === "id") event.id = rest;
        if (name === "data") event.data += rest;
      }
      text = text.slice(end + 2);
      each(event);
    }
  }
}
