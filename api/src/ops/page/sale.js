// Whether a sale may begin, and how it went, or goes.

import { get } from "./api.js";
import { readiness } from "./before.js";
import { column, count, duration, fill, filled, find, go, make, table, time, trouble } from "./dom.js";
import { perMinute } from "./plot.js";

export async function open(rest, query) {
  const [family, key] = rest?.split("/") ?? [];
  const form = find("sale-form");
  fill(form, new URLSearchParams([...query, ...(key ? [["family", family], ["key", key]] : [])]));
  if (!key) {
    find("report").replaceChildren();
    return;
  }
  try {
    const report = get(`/api/admin/sales/${encodeURIComponent(family)}/${encodeURIComponent(key)}/report`, query);
    show(...(await Promise.all([report, readiness(family, key)])));
  } catch (error) {
    find("report").replaceChildren(trouble(error));
  }
}

const tile = (name, value, id = "") => make("div", {}, make("dt", {}, name), make("dd", { id }, value));
const SUCCEEDED = "succeeded";

function show(report, checks) {
  const { outcomes, refusedEarly, waitSeconds: waits } = report;
  const wait = (name) => (waits ? duration(waits[name]) : "–");
  const won = outcomes[SUCCEEDED] ?? 0;
  const refused = Object.values(refusedEarly).reduce((sum, number) => sum + number, 0);
  const tiles = make("dl", { className: "tiles" }, [
    tile("Offered", count(report.offered), "report-offered"),
    tile("Asked, by a job", count(report.asked), "report-asked"),
    tile("Succeeded", count(won), "report-succeeded"),
    tile("Refused at once", count(refused), "report-refused"),
    tile("Waited, median", wait("p50")),
    tile("99 of 100 waited", wait("p99")),
    tile("Longest wait", wait("max")),
  ]);
  const title = make("h3", {}, `${report.name} (${report.kind} ${report.id})`);
  const when = report.first ? make("p", { className: "hint" }, "Asked for between ", time(report.first, true), " and ", time(report.last, true), ".") : null;
  const before = make("details", { id: "readiness", open: report.asked === 0 }, [
    make("summary", {}, "Before it begins"),
    checks,
    make("p", { className: "hint" }, "The queues themselves, the audit of its books and the roles that publish are looked at by ", make("code", {}, `firstcome-worker preflight --${report.kind} ${report.id}`), "."),
  ]);
  const parts = [title, when, tiles, before];
  const container = make("div", { id: "plot-minutes" });
  if (report.perMinute.length) {
    parts.push(make("figure", {}, make("figcaption", {}, "Asked and succeeded, by minute of submission"), container));
  }
  parts.push(
    make("div", { className: "columns" }, [
      make("div", {}, make("h3", {}, "What became of the jobs"), codes(outcomes, report.asked, "There is none.")),
      make("div", {}, make("h3", {}, "Refused at once, without a job"), codes(refusedEarly, refused, "Nobody was.")),
    ]),
    make("p", { className: "hint" }, "Jobs that are settled. Those refused at once are of the whole sale, and some seconds old."),
  );
  find("report").replaceChildren(make("section", {}, parts));
  if (report.perMinute.length) perMinute(container, report.perMinute);
}

function codes(counts, all, ifNone) {
  const rows = Object.entries(counts).sort(([, one], [, other]) => other - one);
  const share = ([code, number]) =>
    make("progress", { className: "share", max: Math.max(1, all), value: number, ariaLabel: `${code}: ${count(number)} of ${count(all)}` });
  const columns = [column("Outcome", ([code]) => code), column("Number", ([, number]) => count(number), "number"), column("Share", share)];
  return table(columns, rows, ifNone);
}

find("sale-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = filled(event.target);
  const rest = `${query.get("family")}/${query.get("key")}`;
  query.delete("family");
  query.delete("key");
  go("sale", rest, query);
});
