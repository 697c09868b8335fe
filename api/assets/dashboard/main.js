// The beginning: language and theme, the door, then the frame and whatever page the address names.

import { get, signedIn, whenSignedOut } from "./api.js";
import { door } from "./door.js";
import { fill } from "./dom.js";
import { speak } from "./i18n.js";
import { frame } from "./shell.js";
import { dress } from "./theme.js";

const app = document.getElementById("app");
let live = null;

speak(localStorage.getItem("flatrender.language") ?? (navigator.language.startsWith("fa") ? "fa" : "en"));
dress();

async function begin() {
  live?.end();
  live = null;
  // What was asked before is asked no more.
  document.getElementById("layer").replaceChildren();
  app.inert = false;
  if (!signedIn()) return fill(app, door(begin));
  try {
    live = frame(app, await get("/v1/me"), begin);
  } catch (error) {
    fill(app, door(begin, error.status === 401 ? null : error));
  }
}

whenSignedOut(begin);
begin();
