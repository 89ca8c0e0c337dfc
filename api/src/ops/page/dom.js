// Elements, figures and times. Whatever is shown becomes text, never HTML.

export const find = (id) => document.getElementById(id);

/** An element with properties (`data` for its data attributes) and children; what is no element becomes text. */
export function make(tag, { data = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts text into an element unless it stands there. */
export function put(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

// --- Figures and times ---------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
// Swedes write 2026-03-01 12:00:01.
const local = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });
const minutes = new Intl.DateTimeFormat("sv-SE", { timeStyle: "short" });
const days = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short" });

export const UNKNOWN = "?";
const known = (value, write) => (value === null || value === undefined ? UNKNOWN : write(value));

export const count = (value) => known(value, (value) => whole.format(value));
export const short = (value) => known(value, (value) => compact.format(value));
export const perSecond = (value) => known(value, (value) => (value > 0 && value < 10 ? tenths : whole).format(value));

/** So many seconds, as one says it. */
export function duration(value) {
  return known(value, (seconds) => {
    if (seconds < 10) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(3)} s`;
    if (seconds < 120) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  });
}

/** An instant in the reader's zone, today's by the clock alone; its title tells it in UTC. */
export function time(iso, withMillis = false) {
  if (!iso) return "";
  const at = new Date(iso);
  const isToday = day(at) === day(new Date());
  const millis = withMillis ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "";
  const title = `${at.toISOString().replace("T", " ").replace("Z", "")} UTC`;
  return make("time", { dateTime: iso, title }, (isToday ? clock : local).format(at) + millis);
}

export const clockTime = (at) => clock.format(at);
export const minuteTime = (at) => minutes.format(at);
export const day = (at) => days.format(at);

// --- Tables --------------------------------------------------------------------------------------------------

/** A column: its name, what stands in it (of a row's value), and whether that is a figure. */
export const column = (name, cell, className = "") => ({ name, cell, className });

export function cell({ name, className }, ...content) {
  return make("td", { className, data: { label: name } }, ...content);
}

export function tableOf(columns, body) {
  const heads = columns.map(({ name, className }) => make("th", { scope: "col", className: className === "number" ? className : "" }, name));
  return make("table", {}, make("thead", {}, make("tr", {}, heads)), body);
}

/** A table of these values, or what is said if there are none. */
export function table(columns, values, ifNone) {
  const row = (value) => make("tr", {}, columns.map((column) => cell(column, column.cell(value))));
  const none = () => make("tr", {}, make("td", { className: "empty", colSpan: columns.length }, ifNone));
  return tableOf(columns, make("tbody", {}, values.length ? values.map(row) : none()));
}

export const badge = (text, kind = "", title = "") => make("span", { className: `badge ${kind}`, title }, text);

export function button(text, onclick, className = "") {
  return make("button", { type: "button", onclick, className }, text);
}

/** A name and what is known by it, if anything is. */
export function fact(name, ...content) {
  const isKnown = content.some((part) => part !== null && part !== undefined && part !== "");
  return isKnown ? make("div", {}, make("dt", {}, name), make("dd", {}, ...content)) : null;
}

// --- What is told --------------------------------------------------------------------------------------------

/** Why something did not work, as the API tells it. */
export function trouble(error) {
  const { code, detail, errors = [], requestId } = error;
  const fields = errors.map(({ field, detail }) => make("li", {}, `${field}: ${detail}`));
  return make(
    "div",
    { className: "trouble" },
    make("strong", {}, code ?? "error"),
    ` ${detail ?? error.message}`,
    fields.length ? make("ul", {}, fields) : null,
    requestId ? make("div", { className: "muted" }, "request ", make("code", {}, requestId)) : null,
  );
}

const SAID_FOR = 8_000;
/** The most that is said at once of what was done. */
const MOST_SAID = 3;

/** Says what was done; or what was not, which stays until it is put away. */
export function say(what) {
  const isTrouble = what instanceof Error;
  const message = make("div", { className: isTrouble ? "bad" : "" }, isTrouble ? trouble(what) : make("span", {}, what));
  message.append(button("Close", () => message.remove()));
  find("messages").append(message);
  if (isTrouble) return;
  setTimeout(() => message.remove(), SAID_FOR);
  const done = find("messages").querySelectorAll(":scope > :not(.bad)");
  if (done.length > MOST_SAID) done[0].remove();
}

/** Whether the operator means it. */
export function confirmed(title, text, action) {
  const dialog = find("confirm");
  put(find("confirm-title"), title);
  put(find("confirm-text"), text);
  put(find("confirm-yes"), action);
  dialog.returnValue = "";
  find("confirm-no").onclick = () => dialog.close("");
  find("confirm-yes").onclick = () => dialog.close("yes");
  dialog.showModal();
  find("confirm-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

/** Does something that takes a moment, once at a time: its button is disabled meanwhile. What fails is said. */
export async function doing(element, action) {
  if (element) element.disabled = true;
  try {
    return await action();
  } catch (error) {
    say(error);
    return undefined;
  } finally {
    if (element) element.disabled = false;
  }
}

// --- Forms and the address -----------------------------------------------------------------------------------

const pad = (number) => String(number).padStart(2, "0");

/** What is filled in, as a query; instants in UTC. */
export function filled(form) {
  const query = new URLSearchParams();
  for (const field of form.elements) {
    const value = field.name ? field.value.trim() : "";
    if (value) query.set(field.name, field.type === "datetime-local" ? new Date(value).toISOString() : value);
  }
  return query;
}

/** Fills in what a query asks for. */
export function fill(form, query) {
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = query.get(field.name) ?? "";
    if (field.type === "datetime-local" && value) {
      const at = new Date(value);
      const date = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
      field.value = `${date}T${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
    } else if (field.tagName === "SELECT" && !value) field.selectedIndex = 0;
    else field.value = value;
  }
}

/** Goes to a place of this page, also to the one where one is. */
export function go(name, rest, query) {
  const hash = `#${name}${rest ? `/${rest}` : ""}${query?.size ? `?${query}` : ""}`;
  if (location.hash === hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}
