// Signs in and out, and goes to the part of the page that the address names: `#jobs/ID?user=7`.

import { events, isSignedIn, signIn, signOut } from "./api.js";
import * as audit from "./audit.js";
import { clockTime, doing, find, put, trouble } from "./dom.js";
import * as jobs from "./jobs.js";
import * as keys from "./keys.js";
import * as letters from "./letters.js";
import * as lines from "./lines.js";
import * as sale from "./sale.js";

const SECTIONS = { lines, keys, letters, jobs, sale, audit };
const FIRST = "lines";

let current = null;

/** Shows what the address names, once somebody is signed in. */
function route() {
  if (!isSignedIn()) return;
  const [place, query = ""] = location.hash.slice(1).split("?", 2);
  const [name, ...rest] = place.split("/");
  const section = Object.hasOwn(SECTIONS, name) ? name : FIRST;
  if (current !== section) {
    if (current) SECTIONS[current].close?.();
    current = section;
    for (const other of Object.keys(SECTIONS)) find(`part-${other}`).hidden = other !== section;
    for (const link of find("sections").children) {
      if (link.hash === `#${section}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${find(`${section}-title`).textContent} · Firstcome operations`;
  }
  doing(null, async () => {
    const path = rest.length ? rest.map(decodeURIComponent).join("/") : null;
    await SECTIONS[section].open(path, new URLSearchParams(query));
  });
}

function showSignIn(why) {
  if (current) {
    SECTIONS[current].close?.();
    find(`part-${current}`).hidden = true;
    current = null;
  }
  find("sections").hidden = find("session").hidden = true;
  find("sign-in").hidden = false;
  find("sign-in-trouble").hidden = !why;
  if (why) find("sign-in-trouble").replaceChildren(...trouble(why).childNodes);
  find("token").value = "";
  find("token").focus();
}

function showSession({ userId, role }) {
  find("token").value = "";
  put(find("who"), `user ${userId}, ${role}`);
  find("sign-in").hidden = true;
  find("sections").hidden = find("session").hidden = false;
  route();
}

find("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(event.submitter, async () => {
    try {
      showSession(await signIn(find("token").value));
    } catch (error) {
      showSignIn(error);
    }
  });
});

// Whatever was shown goes, too.
find("sign-out").addEventListener("click", () => {
  signOut();
  location.reload();
});

find("skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});

events.addEventListener("denied", ({ detail }) => showSignIn(detail));
events.addEventListener("answered", ({ detail: at }) => {
  find("connection").dataset.state = "good";
  put(find("connection"), `answered ${clockTime(at)}`);
  put(find("lost"), "");
});
events.addEventListener("lost", ({ detail: at }) => {
  find("connection").dataset.state = "lost";
  put(find("connection"), "no connection");
  put(find("lost"), `The API does not answer. ${at ? `Its last good answer came at ${clockTime(at)}.` : "It has not answered yet."}`);
});
window.addEventListener("hashchange", route);

showSignIn(null);
