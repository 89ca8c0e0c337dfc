// What operators changed: who, when, what, how it was before and is from then on.

import { get } from "./api.js";
import { button, column, doing, fill, filled, find, go, make, table, time, trouble } from "./dom.js";

const PAGE = 50;

let entries = [];
let next = null;

export function open(_rest, query) {
  fill(find("audit-form"), query);
  [entries, next] = [[], null];
  return more(query);
}

async function more(query) {
  const page = new URLSearchParams(query);
  page.set("limit", PAGE);
  if (next) page.set("cursor", next);
  const mine = entries;
  try {
    const { items, next: leadsOn } = await get("/api/admin/audit-log", page);
    // Something else is asked for by now.
    if (entries !== mine) return;
    entries.push(...items);
    next = leadsOn;
    show(query);
  } catch (error) {
    find("audit-list").replaceChildren(trouble(error));
  }
}

function show(query) {
  const columns = [
    column("When", ({ at }) => time(at)),
    column("Who", ({ who }) => `user ${who}`, "nowrap"),
    column("Action", ({ action }) => action, "nowrap"),
    column("Target", ({ target }) => target, "nowrap"),
    column("What changed", changes, "long"),
    column("Request", ({ requestId }) => requestId ?? "", "code long"),
  ];
  const list = table(columns, entries, next ? "None among those that were looked at: there are more." : "There is none.");
  const older = next ? [make("p", {}, button("Look further back", (event) => doing(event.target, () => more(query))))] : [];
  find("audit-list").replaceChildren(list, ...older);
}

const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** The fields that differ; all of them of what was made or deleted. */
function changes({ before, after }) {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])];
  const isOther = (name) => JSON.stringify(before?.[name]) !== JSON.stringify(after?.[name]);
  const field = (name) => {
    const old = before && name in before ? make("del", {}, written(before[name])) : null;
    const now = after && name in after ? make("ins", {}, written(after[name])) : null;
    return make("span", {}, make("span", { className: "muted" }, `${name} `), old, old && now && " ", now);
  };
  return make("div", { className: "changes" }, names.filter(isOther).map(field));
}

find("audit-form").addEventListener("submit", (event) => {
  event.preventDefault();
  go("audit", null, filled(event.target));
});
