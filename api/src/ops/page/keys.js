// Hot keys: what has a line of its own, and what might do with one.

import { ask, get, mayChange } from "./api.js";
import { badge, button, column, doing, fill, find, make, perSecond, say, table, time, trouble } from "./dom.js";

const MOST_SHOWN = 20;

export function open(_rest, query) {
  find("pin-form").hidden = !mayChange();
  fill(find("pin-form"), query);
  return load();
}

async function load() {
  const [pins, queues] = await Promise.allSettled([get("/api/admin/pins"), get("/api/admin/queues")]);
  const pinned = pins.value?.items ?? [];
  find("pins").replaceChildren(pins.value ? pinTable(pinned) : trouble(pins.reason));
  find("hottest").replaceChildren(queues.value ? hottestTable(queues.value.items, pinned) : trouble(queues.reason));
}

const path = ({ family, key }) => `/api/admin/pins/${family}/${key}`;

const STATES = { active: "good", pending: "warn" };

function pinTable(pins) {
  const columns = [
    column("Key", ({ family, key }) => report(family, key)),
    column("State", ({ state }) => badge(state, STATES[state], state === "pending" ? "the workers make its line within seconds" : "")),
    column("Since", ({ createdAt }) => time(createdAt)),
  ];
  const unpin = (pin) => button("Unpin", (event) => doing(event.target, () => change("DELETE", pin, "is unpinned")));
  if (mayChange()) columns.push(column("", unpin));
  return table(columns, pins, "Nothing is pinned.");
}

/** The busiest keys of all lines, by what their workers told. */
function hottestTable(lines, pins) {
  const hottest = lines.flatMap(({ family, hottest }) => hottest.map((key) => ({ family, ...key })));
  hottest.sort((one, other) => other.perSecond - one.perSecond);
  const isPinned = ({ family, key }) => pins.some((pin) => pin.family === family && pin.key === key);
  const columns = [
    column("Key", ({ family, key }) => report(family, key)),
    column("Jobs per second", ({ perSecond: rate }) => perSecond(rate), "number"),
  ];
  const pin = (key) =>
    isPinned(key) ? badge("pinned", "good") : button("Pin", (event) => doing(event.target, () => change("PUT", key, "is pinned")));
  if (mayChange()) columns.push(column("", pin));
  return table(columns, hottest.slice(0, MOST_SHOWN), "No key is busy.");
}

const report = (family, key) => make("a", { href: `#sale/${family}/${key}` }, `${family} ${key}`);

async function change(method, key, done) {
  await ask(method, path(key));
  say(`${key.family} ${key.key} ${done}.`);
  await load();
}

find("keys-again").addEventListener("click", (event) => doing(event.target, load));
find("pin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { family, key } = event.target.elements;
  doing(event.submitter, () => change("PUT", { family: family.value, key: key.value.trim() }, "is pinned"));
});
