// Jobs of all callers: found by whatever is known, each with what became of it step by step.

import { get } from "./api.js";
import { badge, button, column, count, doing, duration, fact, fill, filled, find, go, make, table, time, trouble } from "./dom.js";

const PAGE = 50;

let jobs = [];
let next = null;
/** The query of what is listed. */
let listed = null;

export async function open(rest, query) {
  const form = find("jobs-form");
  fill(form, query);
  form.elements.job.value = rest ?? "";
  const wanted = query.toString();
  // Of a link to one job, the list is not asked for, too.
  const lists = wanted === listed || (rest && !query.size) ? null : list(query, wanted);
  await Promise.all([rest ? tell(rest, query) : find("story").replaceChildren(), lists]);
}

function list(query, wanted) {
  [jobs, next, listed] = [[], null, wanted];
  return more(query);
}

async function more(query) {
  const page = new URLSearchParams(query);
  page.set("limit", PAGE);
  if (next) page.set("cursor", next);
  const mine = jobs;
  try {
    const { items, next: leadsOn } = await get("/api/admin/jobs", page);
    // Something else is asked for by now.
    if (jobs !== mine) return;
    jobs.push(...items);
    next = leadsOn;
    show(query);
  } catch (error) {
    listed = null;
    find("jobs-list").replaceChildren(trouble(error));
  }
}

// --- The list ------------------------------------------------------------------------------------------------

const KINDS = { succeeded: "good", rejected: "", failed: "bad", queued: "warn" };

const codeOf = ({ error }) => error?.code ?? "";

function outcome(job) {
  return make("span", {}, badge(job.status, KINDS[job.status]), codeOf(job) ? ` ${codeOf(job)}` : "");
}

function about({ couponId, productIds, orderId }) {
  const coupon = couponId === null ? [] : [`coupon ${couponId}`];
  const order = orderId === null ? [] : [`order ${orderId}`];
  return [...coupon, ...productIds.map((id) => `product ${id}`), ...order].join(", ");
}

function wait({ submittedAt, settledAt }) {
  return settledAt ? duration((Date.parse(settledAt) - Date.parse(submittedAt)) / 1000) : "";
}

function show(query) {
  const kept = query.size ? `?${query}` : "";
  const columns = [
    column("Submitted", ({ submittedAt }) => time(submittedAt)),
    column("Job", ({ jobId }) => make("a", { href: `#jobs/${jobId}${kept}`, className: "code whole" }, jobId), "long"),
    column("User", ({ userId }) => userId, "number"),
    column("Kind", ({ kind }) => kind, "nowrap"),
    column("About", about),
    column("Outcome", outcome),
    column("Took", wait, "number"),
  ];
  const ifNone = next ? "None among those that were looked at: there are more." : "There is none like that.";
  const list = table(columns, jobs, ifNone);
  const older = button("Look further back", (event) => doing(event.target, () => more(query)));
  const foot = next ? make("p", {}, older) : make("p", { className: "hint" }, `${count(jobs.length)} in all.`);
  find("jobs-list").replaceChildren(list, foot);
}

// --- One job -------------------------------------------------------------------------------------------------

async function tell(id, query) {
  const user = query.get("user");
  let story;
  try {
    story = await get(`/api/admin/jobs/${encodeURIComponent(id)}`, new URLSearchParams(user ? { user } : {}));
  } catch (error) {
    find("story").replaceChildren(trouble(error));
    return;
  }
  const title = make("h3", { tabIndex: -1 }, "Job ", make("span", { className: "code" }, story.jobId));
  const close = make("a", { className: "button", href: `#jobs${query.size ? `?${query}` : ""}` }, "Close");
  const steps = make("ol", { className: "timeline" }, story.timeline.map(step));
  find("story").replaceChildren(make("div", { className: "card story" }, make("div", { className: "bar" }, title, close), facts(story), steps));
  title.focus();
}

function facts(story) {
  const { error, result } = story;
  const json = (value) => make("code", {}, JSON.stringify(value));
  return make("dl", { className: "facts" }, [
    fact("Outcome", outcome(story)),
    fact("User", story.userId),
    fact("Kind", story.kind),
    fact("About", about(story)),
    fact("Place in line", story.position),
    fact("Result", result && json(result)),
    fact("Why", error?.detail),
    fact("Queue", story.queue && make("span", { className: "code" }, story.queue)),
    fact("Idempotency-Key", story.idempotencyKey),
    fact("Repeats", story.replayOf && make("a", { href: `#jobs/${story.replayOf}`, className: "code" }, story.replayOf)),
    fact("Trace", story.traceId && make("span", { className: "code" }, story.traceId)),
  ]);
}

function step({ at, what, queue, detail }) {
  const isBad = what === "dead-lettered" || detail?.status === "failed";
  const kind = isBad ? "bad" : detail?.status === "succeeded" ? "good" : "";
  return make("li", { className: kind }, time(at, true), make("strong", {}, what), make("span", { className: "muted" }, described(queue, detail ?? {})));
}

function described(queue, { waitedSeconds, together, status, code, reason, jobId, ...others }) {
  const parts = [
    waitedSeconds !== undefined && `after ${duration(waitedSeconds)}`,
    together && `with ${count(together)} ${together === 1 ? "job" : "jobs"} in its batch`,
    status,
    code,
    reason,
    jobId && `repeats ${jobId}`,
    queue && `in ${queue}`,
    Object.keys(others).length > 0 && JSON.stringify(others),
  ];
  return parts.filter(Boolean).join(", ");
}

find("jobs-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = filled(event.target);
  const job = query.get("job");
  query.delete("job");
  // Also of the same query it is to be asked anew.
  listed = null;
  go("jobs", job, query);
});
