// Whether a sale may begin: what the API knows of the coupon or product, and of the lines that serve it.

import { get } from "./api.js";
import { badge, column, count, table, time } from "./dom.js";

const KINDS = { ok: "good", warning: "warn", failed: "bad" };

const good = (what, ...detail) => ["ok", what, detail];
const warning = (what, ...detail) => ["warning", what, detail];
const failed = (what, ...detail) => ["failed", what, detail];

/** The checks, as a table. */
export async function readiness(family, key) {
  const paths = [`/api/${family}s/${encodeURIComponent(key)}`, "/api/admin/queues", "/api/admin/dead-letters?limit=100", "/api/admin/pins"];
  const [sale, queues, letters, pins] = await Promise.allSettled(paths.map((path) => get(path)));
  const asked = (name, answer, look) => (answer.value ? look(answer.value) : [failed(name, answer.reason.detail)]);
  // Where operators have a port of their own, customers' paths are not on it.
  const ofSale = sale.reason?.status === 404 ? [warning("sale", "not told at this address, or deleted")] : asked("sale", sale, terms);
  const checks = [
    ...ofSale,
    ...asked("lines", queues, ({ items }) => lines(items.filter((line) => line.family === family), family)),
    ...asked("dead letters", letters, ({ items }) => [lettersOf(items.filter(({ queue }) => queue.includes(`.${family}.`)))]),
    ...asked("pin", pins, ({ items }) => [pinOf(items.find((pin) => pin.family === family && String(pin.key) === key))]),
  ];
  const columns = [
    column("", ([verdict]) => badge(verdict, KINDS[verdict])),
    column("What", ([, what]) => what),
    column("Detail", ([, , detail]) => detail, "long"),
  ];
  return table(columns, checks, "");
}

/** When it can be had, and how much there is. */
function terms({ paused, startsAt, endsAt, onSaleFrom, onSaleUntil, remaining, stock }) {
  const [from, until] = [startsAt ?? onSaleFrom, endsAt ?? onSaleUntil];
  const left = remaining ?? stock;
  const now = new Date();
  let window = good("window", "on sale");
  if (until && new Date(until) <= now) window = failed("window", "is over since ", time(until));
  else if (from && new Date(from) > now) window = good("window", "begins at ", time(from));
  return [
    window,
    paused ? failed("pause", "paused: nobody gets any") : good("pause", "not paused"),
    left > 0 ? good("stock", `${count(left)} left`) : failed("stock", "nothing is left"),
  ];
}

function lines(all, family) {
  if (!all.length) return [failed("lines", `there are none: start a ${family}s worker`)];
  const current = all.filter(({ state }) => state !== "closed");
  const unserved = current.filter(({ state, lastKnown }) => state !== "open" || lastKnown.length);
  const waiting = all.reduce((sum, line) => sum + line.waitingJobs, 0);
  const halted = all.some((line) => line.halted);
  return [
    unserved.length ? failed("lines", `${unserved.length} of ${current.length} are not served`) : good("lines", `all ${current.length} are served`),
    ...(halted ? [failed("halt", `the ${family} lines are halted`)] : []),
    waiting ? warning("waiting", `${count(waiting)} jobs wait already`) : good("waiting", "no job waits"),
  ];
}

const lettersOf = (letters) =>
  letters.length ? warning("dead letters", `${letters.length === 100 ? "100 or more" : letters.length} of its family`) : good("dead letters", "none of its family");

const pinOf = (pin) => (pin ? good("pin", `has a line of its own (${pin.state})`) : good("pin", "shares a line with other keys"));
