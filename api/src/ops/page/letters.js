// Dead letters: found, looked into, given another attempt, or forgotten.

import { ask, get, mayChange } from "./api.js";
import { badge, button, column, confirmed, count, doing, find, make, put, say, table, time, trouble } from "./dom.js";

const PAGE = 100;

let letters = [];
let next = null;
const selected = new Set();

export function open(_rest, query) {
  if (query.has("find")) find("letters-filter").value = query.get("find");
  return load();
}

async function load() {
  [letters, next] = [[], null];
  selected.clear();
  await more();
}

async function more() {
  const query = new URLSearchParams({ limit: PAGE });
  if (next) query.set("cursor", next);
  const mine = letters;
  try {
    const page = await get("/api/admin/dead-letters", query);
    if (letters !== mine) return;
    letters.push(...page.items);
    next = page.next;
  } catch (error) {
    find("letters-list").replaceChildren(trouble(error));
    return;
  }
  show();
}

const texts = (letter) => [letter.queue, letter.reason, letter.jobId, letter.userId, letter.payload, letter.requestId];

function shown() {
  const wanted = find("letters-filter").value.trim().toLowerCase();
  const has = (text) => text !== null && String(text).toLowerCase().includes(wanted);
  return wanted ? letters.filter((letter) => texts(letter).some(has)) : letters;
}

// --- What is shown -------------------------------------------------------------------------------------------

function show() {
  const rows = shown();
  const those = new Set(rows.map(({ id }) => id));
  for (const id of selected) if (!those.has(id)) selected.delete(id);
  const columns = [
    column("Id", ({ id }) => id, "number"),
    column("When", ({ deadLetteredAt }) => time(deadLetteredAt)),
    column("Queue", ({ queue }) => queue, "code whole long"),
    column("Job", job, "long"),
    column("Reason", reason, "long"),
    column("Attempts", ({ attempts }) => attempts, "number"),
    column("", ({ redriveRequestedAt }) => redriveRequestedAt && badge("redrive asked for", "warn", redriveRequestedAt)),
  ];
  if (mayChange()) columns.unshift(column("Choose", choice));
  const list = table(columns, rows, letters.length ? "None of those that are loaded is like that." : "There is none.");
  const older = next ? make("p", {}, button("Load older ones", (event) => doing(event.target, more))) : null;
  find("letters-list").replaceChildren(list, ...(older ? [older] : []));
  const part = rows.length === letters.length ? "" : `${count(rows.length)} of `;
  put(find("letters-count"), `${part}${letterOrLetters(letters.length)}${next ? " loaded, there are more" : ""}`);
  showActions(rows);
}

function choice({ id }) {
  const box = make("input", { type: "checkbox", checked: selected.has(id), ariaLabel: `Choose dead letter ${id}` });
  box.addEventListener("change", () => {
    if (box.checked) selected.add(id);
    else selected.delete(id);
    showActions(shown());
  });
  return box;
}

function job({ jobId, userId }) {
  if (!jobId) return make("span", { className: "muted" }, "no job");
  const link = make("a", { href: `#jobs/${jobId}`, className: "code whole" }, jobId);
  return userId === null ? link : make("div", {}, link, make("div", { className: "muted" }, `user ${userId}`));
}

function reason({ reason, payload, trace, requestId }) {
  const about = [trace && `traceparent ${trace}`, requestId && `request ${requestId}`].filter(Boolean);
  const more = make("details", {}, make("summary", {}, "payload"), make("pre", {}, payload), about.map((line) => make("div", { className: "muted code" }, line)));
  return make("div", {}, reason, more);
}

function showActions(rows) {
  if (!mayChange()) {
    find("letters-actions").replaceChildren();
    return;
  }
  const isAll = rows.length > 0 && rows.every(({ id }) => selected.has(id));
  const choose = button(isAll ? "Choose none" : "Choose all shown", () => {
    for (const { id } of rows) isAll ? selected.delete(id) : selected.add(id);
    show();
  });
  const redrive = button(`Redrive ${count(selected.size)}`, (event) => doing(event.target, redriveSelected));
  const discard = button(`Discard ${count(selected.size)}`, (event) => doing(event.target, discardSelected), "danger");
  choose.disabled = rows.length === 0;
  redrive.disabled = discard.disabled = selected.size === 0;
  find("letters-actions").replaceChildren(choose, redrive, discard);
}

// --- What is done --------------------------------------------------------------------------------------------

const letterOrLetters = (number) => `${count(number)} dead ${number === 1 ? "letter" : "letters"}`;

async function redriveSelected() {
  await forEach((id) => ask("POST", `/api/admin/dead-letters/${id}/redrive`), "another attempt is asked for");
}

async function discardSelected() {
  const text = "What is discarded is forgotten, which cannot be undone. A job keeps its outcome, failed.";
  if (await confirmed(`Discard ${letterOrLetters(selected.size)}?`, text, "Discard")) {
    await forEach((id) => ask("DELETE", `/api/admin/dead-letters/${id}`), "discarded");
  }
}

/** One after the other, oldest first. One that is not taken harms no other; it stays chosen. */
async function forEach(act, done) {
  const ids = [...selected].sort((one, other) => one - other);
  let [acted, refused] = [0, null];
  for (const id of ids) {
    try {
      await act(id);
      acted += 1;
    } catch (error) {
      refused ??= error;
      // None that follows would fare better.
      if (error.status !== 404 && error.status !== 409) break;
    }
  }
  if (acted) say(`${letterOrLetters(acted)}: ${done}.`);
  if (refused) say(refused);
  await load();
}

find("letters-filter").addEventListener("input", show);
find("letters-again").addEventListener("click", (event) => doing(event.target, load));
