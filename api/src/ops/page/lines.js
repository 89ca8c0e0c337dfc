// The lines, live: asked for once a second while they are shown, and while the page is.

import { ask, get, mayChange } from "./api.js";
import {
  badge, button, clockTime, column, confirmed, count, doing, duration, find, make, perSecond, put, say, time, trouble,
} from "./dom.js";
import { LivePlot } from "./plot.js";
import { Rows } from "./rows.js";
import { History, remembered, Settled, SUM } from "./series.js";

const EVERY = 1_000;
/** How long a line that has become idle stays in the table, in seconds. */
const LINGER = 60;

const history = new History();
const settled = new Settled();
/** When each line was last seen with something to do, or in trouble. */
const lively = new Map();
let plots = null;
let chosen = null;
let isOpen = false;
/** The looking that goes on, if any does; another one has another name. */
let looking = null;
/** The answer before, for what is drawn again without another. */
let latest = null;

export function open() {
  isOpen = true;
  plots ??= {
    waiting: new LivePlot(find("plot-waiting"), "waiting"),
    rate: new LivePlot(find("plot-rate"), "rate"),
    age: new LivePlot(find("plot-age"), "age"),
  };
  resume();
}

export function close() {
  isOpen = false;
  pause();
}

function pause() {
  if (looking === null) return;
  looking = null;
  // What happens from now on is not seen.
  if (history.times.length) history.gap(Date.now() / 1000);
}

function resume() {
  if (looking !== null || !isOpen || document.hidden) return;
  looking = {};
  look(looking);
}

document.addEventListener("visibilitychange", () => (document.hidden ? pause() : resume()));
find("idle-too").addEventListener("change", () => latest && showLines(latest.items));

/** Begins with what the API remembers, if it does. */
async function recall(mine) {
  const past = await get("/api/admin/queues/history").catch(() => null);
  if (looking !== mine || history.times.length || !past) return;
  for (const [at, figures] of remembered(past)) history.push(at, figures);
}

async function look(mine) {
  const began = performance.now();
  try {
    if (!history.times.length) await recall(mine);
    const answer = await get("/api/admin/queues");
    if (looking !== mine) return;
    note(answer);
    latest = answer;
    show(answer);
    find("lines-trouble").hidden = true;
    find("lines-figures").classList.remove("stale");
  } catch (error) {
    if (looking !== mine) return;
    // What was known last stays, and looks like it.
    history.gap(Date.now() / 1000);
    find("lines-trouble").replaceChildren(...trouble(error).childNodes);
    // That no answer came is told above.
    find("lines-trouble").hidden = error.status === 0;
    find("lines-figures").classList.add("stale");
    showPlots();
  }
  // One that takes long is not followed by another at once.
  const wait = Math.max(EVERY / 4, EVERY - (performance.now() - began));
  setTimeout(() => looking === mine && look(mine), wait);
}

// --- What is remembered --------------------------------------------------------------------------------------

const isTold = (line, by) => !line.lastKnown.includes(by);
const sum = (lines, figure) => lines.reduce((sum, line) => sum + line[figure], 0);
const oldest = (lines) => Math.max(0, ...lines.map((line) => line.oldestSeconds));

function note({ items: lines }) {
  const at = Date.now() / 1000;
  // Counters that the database does not tell stand still, which says nothing of how many are settled.
  const counts = lines.every((line) => isTold(line, "database"));
  if (counts && settled.isNew()) put(find("opened-at"), clockTime(at * 1000));
  if (counts) settled.read(at, new Map(lines.map((line) => [line.queue, line.settledJobs])));
  const figures = new Map([[SUM, { waiting: sum(lines, "waitingJobs"), rate: counts ? settled.rate() : null, age: oldest(lines) }]]);
  for (const line of lines) {
    const rate = counts ? settled.rate(line.queue) : null;
    line.rate = rate;
    figures.set(line.queue, { waiting: line.waitingJobs, rate, age: line.oldestSeconds });
    if (line.waitingJobs > 0 || rate > 0 || isInTrouble(line)) lively.set(line.queue, at);
  }
  history.push(at, figures);
}

const isInTrouble = (line) => line.state === "stalled" || line.state === "waiting" || line.lastKnown.length > 0;

// --- What is shown -------------------------------------------------------------------------------------------

function show(answer) {
  const lines = answer.items;
  const isCounted = lines.every((line) => isTold(line, "database"));
  put(find("sum-waiting"), count(sum(lines, "waitingJobs")));
  put(find("sum-rate"), isCounted ? perSecond(settled.rate()) : "?");
  put(find("sum-age"), duration(oldest(lines)));
  put(find("sum-settled"), count(settled.total()));
  showStates(lines);
  showPlots();
  showFamilies(lines);
  showWorkers(lines);
  showLines(lines);
}

function showStates(lines) {
  const states = new Map();
  for (const { state } of lines) states.set(state, (states.get(state) ?? 0) + 1);
  const told = [...states].map(([state, number]) => `${number} ${state}`);
  for (const by of ["broker", "database"]) if (!lines.every((line) => isTold(line, by))) told.push(`${by} does not answer`);
  for (const { family, lines: its } of familiesOf(lines)) if (isHalted(its)) told.push(`${family} halted`);
  const element = find("sum-lines");
  element.className = told.length > 1 ? "small" : "";
  put(element, told.join(", "));
}

function showPlots() {
  for (const [figure, plot] of Object.entries(plots)) {
    plot.show(history.times, history.of(SUM, figure), history.of(chosen?.queue, figure), chosen && nameOf(chosen));
  }
}

const two = (number) => String(number).padStart(2, "0");

function nameOf({ family, partition, pinnedKey }) {
  return pinnedKey === null ? `${family} ${two(partition)}` : `${family} pin ${pinnedKey}`;
}

const STATES = {
  open: ["good", "serves its jobs"],
  waiting: ["warn", "waits for older lines to drain"],
  closed: ["", "takes no new jobs"],
  stalled: ["bad", "nobody serves it, or its worker has stopped telling"],
};

function stateBadges(line) {
  const [kind, title] = STATES[line.state] ?? [];
  const badges = [badge(line.state, kind, title)];
  if (line.halted) badges.push(badge("halted", "warn", "its consumers pause; jobs are accepted"));
  if (line.lastKnown.length) badges.push(badge("last known", "warn", `does not answer: ${line.lastKnown.join(", ")}`));
  return badges;
}

/** Whether a family with these lines is halted; `undefined` where the API, of another version, does not tell. */
function isHalted(lines) {
  const told = lines.map(({ halted }) => halted).filter((halted) => halted !== undefined);
  return told.length ? told.includes(true) : undefined;
}

// --- Families, and workers ------------------------------------------------------------------------------------

let families = null;
let workers = null;

function familiesOf(lines) {
  const names = [...new Set(lines.map(({ family }) => family))];
  return names.map((family) => ({ family, lines: lines.filter((line) => line.family === family) }));
}

function showFamilies(lines) {
  families ??= new Rows(find("families"), [
    column("Family", ({ family }) => family),
    column("Lines", ({ lines }) => count(lines.length), "number"),
    column("Waiting", ({ lines }) => count(sum(lines, "waitingJobs")), "number"),
    column("Per second", ({ lines }) => rateOf(lines), "number"),
    column("Oldest", ({ lines }) => duration(oldest(lines)), "number"),
    column("", ({ family, halted }) => [`${halted} ${mayChange()}`, () => haltCell(family, halted)]),
  ]);
  const values = familiesOf(lines).map(({ family, lines }) => ({ family, lines, halted: isHalted(lines) }));
  families.show(values, ({ family }) => family, "");
}

function rateOf(lines) {
  return lines.some((line) => line.rate === null) ? "?" : perSecond(lines.reduce((sum, line) => sum + line.rate, 0));
}

function haltCell(family, halted) {
  if (halted === undefined) return [];
  const told = halted ? [badge("halted", "warn", "its consumers pause; jobs are accepted"), " "] : [];
  if (!mayChange()) return told;
  return [...told, button(halted ? "Resume" : "Halt", (event) => doing(event.target, () => halt(family, !halted)))];
}

async function halt(family, isToHalt) {
  const text = `Jobs of ${family}s are accepted as before and wait; none is settled until the lines are resumed.`;
  if (isToHalt && !(await confirmed(`Halt the ${family} lines?`, text, "Halt"))) return;
  await ask("POST", `/api/admin/queues/${family}/${isToHalt ? "halt" : "resume"}`);
  say(`The ${family} lines are ${isToHalt ? "halted" : "resumed"}.`);
}

function showWorkers(lines) {
  workers ??= new Rows(find("workers"), [
    column("Worker", ({ owner }) => owner ?? "nobody", "code"),
    column("Lines", ({ lines }) => count(lines.length), "number"),
    column("Waiting", ({ lines }) => count(sum(lines, "waitingJobs")), "number"),
    column("Per second", ({ lines }) => rateOf(lines), "number"),
  ]);
  const owners = [...new Set(lines.map(({ owner }) => owner))].sort();
  const values = owners.map((owner) => ({ owner, lines: lines.filter((line) => line.owner === owner) }));
  workers.show(values, ({ owner }) => owner ?? "", "");
}

// --- Each line ------------------------------------------------------------------------------------------------

let each = null;

function showLines(lines) {
  each ??= new Rows(find("each-line"), [
    column("Line", (line) => [`${line.title} ${line.queue === chosen?.queue}`, () => [chooser(line)]]),
    column("State", (line) => [`${line.state} ${line.halted} ${line.lastKnown}`, () => stateBadges(line)]),
    column("Waiting", (line) => count(line.waitingJobs), "number"),
    column("Per second", (line) => perSecond(line.rate), "number"),
    column("Oldest", (line) => duration(line.oldestSeconds), "number"),
    column("Settled", (line) => count(settled.total(line.queue)), "number"),
    column("Messages", (line) => `${count(line.ready)} + ${count(line.unacked)}`, "number"),
    column("Busiest key", (line) => busiest(line)),
    column("Worker", (line) => line.owner ?? "nobody", "code"),
    column("Last progress", (line) => [line.lastProgressAt, () => [time(line.lastProgressAt)]]),
  ]);
  const now = Date.now() / 1000;
  const isShown = (line) => find("idle-too").checked || now - (lively.get(line.queue) ?? 0) < LINGER || line.queue === chosen?.queue;
  const shown = lines.filter(isShown);
  const generations = new Set(lines.map(({ family, generation }) => `${family} ${generation}`));
  const isPlain = generations.size <= new Set(lines.map(({ family }) => family)).size;
  for (const line of shown) line.title = nameOf(line) + (isPlain ? "" : ` (routing ${line.generation})`);
  each.show(shown, ({ queue }) => queue, "No line has anything to do.", chosen?.queue);
  const hidden = lines.length - shown.length;
  put(find("idle-lines"), hidden ? `${hidden} idle ${hidden === 1 ? "line is" : "lines are"} left out. Messages: ready + with the worker.` : "Messages: ready + with the worker.");
}

function chooser(line) {
  const isChosen = line.queue === chosen?.queue;
  const choose = () => {
    chosen = isChosen ? null : line;
    showPlots();
    if (latest) showLines(latest.items);
  };
  return Object.assign(button(line.title, choose, "plain"), { ariaPressed: String(isChosen), title: line.queue });
}

function busiest({ family, hottest }) {
  const [first] = hottest;
  if (!first) return "";
  const text = `${family} ${first.key}`;
  const query = new URLSearchParams({ family, key: first.key });
  return [`${text} ${first.perSecond}`, () => [make("a", { href: `#keys?${query}` }, text), ` ${perSecond(first.perSecond)}/s`]];
}
