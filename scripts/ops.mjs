// Drives the operators' page in Chromium, as operators do; `scripts/ops.test` runs it. Whatever the page logs as an error,
// throws, or is kept from by its policy fails it.
import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import { launch } from "../examples/shop/browser.mjs";

const [api] = process.argv.slice(2);
const { ADMIN_TOKEN, AUDITOR_TOKEN, API_PID, WORKER_PID, PICTURES, DATABASE_URL } = process.env;
/** Who ask at once, how many of them while no worker serves them, and what there is. */
const CROWD = Number(process.env.CROWD ?? 20_000);
const FIRST = 1_000;
const TOTAL = CROWD * 0.75;
const CONNECTIONS = 48;
const DEADLINE = 100_000;
const PATIENCE = 20_000;
const SECTIONS = ["lines", "keys", "letters", "jobs", "sale", "audit"];

const began = performance.now();
const ok = (text) => console.log(`ok: ${text} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
const pause = (millis) => new Promise((done) => setTimeout(done, millis));
function check(holds, what) {
  if (!holds) throw new Error(what);
}
function equal(found, expected, what) {
  check(found === expected, `${what}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
}

// --- The browser ---------------------------------------------------------------------------------------------

const troubles = [];
/** How often the page asked for the lines. */
let looks = 0;
/** How often it was loaded. */
let loads = 0;
// Problems that are asked for here; each is looked at in the page.
const REFUSED = /the server responded with a status of (401|403|404)|ERR_INTERNET_DISCONNECTED/;

function tell({ method, params }) {
  if (method === "Runtime.exceptionThrown") troubles.push(JSON.stringify(params.exceptionDetails.exception));
  if (method === "Runtime.consoleAPICalled" && ["error", "warning"].includes(params.type)) troubles.push(JSON.stringify(params.args));
  if (method === "Log.entryAdded" && params.entry.level === "error" && !REFUSED.test(params.entry.text)) troubles.push(params.entry.text);
  if (method === "Page.loadEventFired") loads += 1;
  if (method === "Network.requestWillBeSent" && params.request.url.endsWith("/api/admin/queues")) looks += 1;
}

const browser = launch({ deadline: DEADLINE, tell });
let session = null;
const chromium = (method, params = {}) => browser.ask(method, params, session);

async function run(expression) {
  const { result, exceptionDetails } = await chromium("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
  if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
  return result.value;
}

/** Waits until an expression is true in the page. */
async function until(what, expression) {
  const deadline = Date.now() + PATIENCE;
  while (!(await run(expression))) {
    check(Date.now() < deadline, `${what}; the page says: ${await run("document.body.innerText")}`);
    await pause(50);
  }
}

const text = (id) => run(`document.getElementById("${id}").textContent`);
const figure = async (id) => Number((await text(id)).replaceAll(",", ""));
const hasFigure = (id, value) => `document.getElementById("${id}").textContent.replaceAll(",", "") === "${value}"`;
const click = (selector) => run(`document.querySelector(${JSON.stringify(selector)}).click()`);
const has = (id, part) => `document.getElementById("${id}").textContent.includes(${JSON.stringify(part)})`;
const press = (label) => run(`[...document.querySelectorAll("section:not([hidden]) button")].find((button) => button.textContent === ${JSON.stringify(label)}).click()`);
const type = (selector, value) =>
  run(`{ const field = document.querySelector(${JSON.stringify(selector)}); field.value = ${JSON.stringify(value)}; field.dispatchEvent(new Event("input")) }`);
const goTo = (place) => run(`location.hash = ${JSON.stringify(place)}`);
const series = (id) => run(`document.getElementById("${id}").plot.data`);
const KEYS = { Tab: { windowsVirtualKeyCode: 9 }, Enter: { windowsVirtualKeyCode: 13, text: "\r" } };
async function key(name) {
  for (const type of ["keyDown", "keyUp"]) await chromium("Input.dispatchKeyEvent", { type, key: name, code: name, ...KEYS[name] });
}

async function size(width, height, isDark = false) {
  // Phones draw the bars to scroll with over the page.
  await chromium("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  const features = [{ name: "prefers-color-scheme", value: isDark ? "dark" : "light" }];
  await chromium("Emulation.setEmulatedMedia", { features });
}

async function picture(name, isWhole = false) {
  const { data } = await chromium("Page.captureScreenshot", { format: "png", captureBeyondViewport: isWhole });
  writeFileSync(`${PICTURES}/${name}.png`, Buffer.from(data, "base64"));
}

async function signIn(token) {
  await until("there is no form to sign in", `document.activeElement?.id === "token"`);
  await chromium("Input.insertText", { text: token });
  await key("Enter");
}

// --- The shop ------------------------------------------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });

function request(method, path, token, body) {
  return new Promise((done, fail) => {
    const headers = { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) };
    const sent = http.request(api + path, { method, agent, headers }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () => done({ status: answer.statusCode, body: text && JSON.parse(text) }));
    });
    sent.on("error", fail).end(body && JSON.stringify(body));
  });
}

/** A customer's token, made from the secret of development. */
function customer(user) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${encode({ alg: "HS256" })}.${encode({ sub: String(user), exp: Math.floor(Date.now() / 1000) + 600 })}`;
  return `${text}.${createHmac("sha256", "firstcome-development-only").update(text).digest("base64url")}`;
}

async function campaign(name, total) {
  const at = (millis) => new Date(Date.now() + millis).toISOString();
  const terms = { name, discountType: "fixed", discountValue: 1000, total, startsAt: at(-1000), endsAt: at(3_600_000) };
  const { status, body } = await request("POST", "/api/admin/coupons", ADMIN_TOKEN, terms);
  equal(status, 201, "a campaign");
  return body.id;
}

/** These users ask for a coupon; how they were answered, by status. */
async function crowd(coupon, first, last) {
  const counts = {};
  const users = Array.from({ length: last - first }, (_, index) => first + index);
  const one = async () => {
    for (let user = users.pop(); user !== undefined; user = users.pop()) {
      const { status } = await request("POST", `/api/coupons/${coupon}/issue`, customer(user));
      counts[status] = (counts[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, one));
  return counts;
}

async function outcome(user, jobId) {
  for (let tries = 0; tries < 300; tries += 1) {
    const { body } = await request("GET", `/api/jobs/${jobId}`, customer(user));
    if (body.status !== "queued") return body.status;
    await pause(50);
  }
  return "queued";
}

const sql = (statement) => execFileSync("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", DATABASE_URL, "-c", statement]).toString().trim();
/** A dead letter that nothing else made. */
const noEvent = () =>
  sql("INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload) VALUES ('firstcome.order-completed.sales-stats', gen_random_uuid(), 0, 'no event', 1, '{}')");
/** Seconds of a processor that the API has used. */
function used() {
  const fields = readFileSync(`/proc/${API_PID}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

// --- What operators do ----------------------------------------------------------------------------------------

async function comeIn() {
  const { targetId } = await browser.ask("Target.createTarget", { url: "about:blank" });
  ({ sessionId: session } = await browser.ask("Target.attachToTarget", { targetId, flatten: true }));
  for (const domain of ["Runtime", "Log", "Network", "Page"]) await chromium(`${domain}.enable`);
  await size(1440, 900);
  await chromium("Page.navigate", { url: `${api}/ops` });
  await signIn("not-a-token");
  await until("a wrong token is not refused", has("sign-in-trouble", "unauthenticated The token is malformed"));
  await picture("sign-in");
  await signIn(ADMIN_TOKEN);
  await until("nobody is signed in", has("who", "user 1, admin"));
  equal(await run("localStorage.length + sessionStorage.length + document.cookie.length"), 0, "what is stored");
  await until("the lines are not shown", hasFigure("sum-waiting", 0));
  ok("a wrong token is refused, an operator's is not, and it is stored nowhere");
}

async function holdSale() {
  const coupon = await campaign("Launch day", TOTAL);
  await goTo(`#sale/coupon/${coupon}`);
  await until("it is not told that the sale may begin", `document.querySelectorAll("#readiness .good").length === 7`);
  check(await run(`document.getElementById("readiness").open && !document.querySelector("#readiness .bad, #readiness .warn")`), "something is not ready");
  await picture("before", true);
  process.kill(WORKER_PID, "SIGSTOP");
  await until("a hung worker is not told before the sale", `document.querySelector("#report .bad") !== null || (document.querySelector("#sale-form button").click(), false)`);
  check(await run(has("readiness", "are not served")), "why it may not begin");
  await goTo("#lines");
  const early = await crowd(coupon, 100, 100 + FIRST);
  equal(early[202], FIRST, "accepted while nobody serves them");
  await until("what waits is not told", hasFigure("sum-waiting", FIRST));
  await until("a line is not stalled", has("each-line", "stalled"));
  const itsRow = `[...document.querySelectorAll("#each-line tr")].find((row) => row.cells[2].textContent === "${FIRST.toLocaleString("en")}")`;
  await run(`${itsRow}.querySelector("button").click()`);
  await picture("lines-stalled", true);
  process.kill(WORKER_PID, "SIGCONT");
  const late = await crowd(coupon, 100 + FIRST, 100 + CROWD);
  const accepted = FIRST + late[202];
  const refused = late[409] ?? 0;
  equal(accepted + refused, CROWD, `answered with 202 or 409 ${JSON.stringify(late)}`);
  await until("not all is settled", `${hasFigure("sum-settled", accepted)} && ${hasFigure("sum-waiting", 0)}`);
  const [times, waiting, ofLine] = await series("plot-waiting");
  check(times.length > 3 && Math.max(...waiting) >= FIRST, `the plot did not move: ${waiting}`);
  equal(waiting.at(-1), 0, "what waits in the end");
  equal(JSON.stringify(ofLine.slice(-3)), JSON.stringify(waiting.slice(-3)), "the one line's series");
  const [, rates] = await series("plot-rate");
  check(Math.max(...rates) > 0, `nothing is settled per second: ${rates}`);
  await pause(500);
  await picture("lines", true);
  ok(`a sale to ${CROWD}: the plot moves, ${accepted} jobs waited and are settled, to the unit`);

  await goTo(`#sale/coupon/${coupon}`);
  // Who was refused at once is told some seconds late.
  await until("there is no report", `document.getElementById("report-asked") !== null`);
  for (let tries = 0; (await figure("report-refused")) !== refused && tries < 50; tries += 1) {
    await pause(200);
    await click("#sale-form button");
    await pause(100);
  }
  const told = [await figure("report-asked"), await figure("report-succeeded"), await figure("report-refused"), await figure("report-offered")];
  equal(told.join(), [accepted, TOTAL, refused, TOTAL].join(), "the report");
  const [, asked, succeeded] = await series("plot-minutes");
  const sum = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  equal([sum(asked), sum(succeeded)].join(), [accepted, TOTAL].join(), "the minutes of the report");
  equal(await figure("sum-settled"), accepted, "what the lines settled");
  await picture("sale", true);
  ok("the report agrees with the plot, and with what the crowd was told");
  return coupon;
}

async function dealWithLetters() {
  const coupon = await campaign("Drifted", 10);
  const issue = async (user) => {
    const { body } = await request("POST", `/api/coupons/${coupon}/issue`, customer(user));
    return [body.jobId, await outcome(user, body.jobId)];
  };
  equal((await issue(10))[1], "succeeded", "the first job");
  // The data contradicts itself, until somebody puts it right.
  sql(`UPDATE coupons SET issued = 0 WHERE id = ${coupon}`);
  const [redriven, status] = await issue(11);
  equal(status, "failed", "a job in contradiction");
  sql(`UPDATE coupons SET issued = 1 WHERE id = ${coupon}`);

  noEvent();
  await goTo("#letters");
  await until("the letters are not listed", `${has("letters-list", redriven)} && ${has("letters-list", "no event")}`);
  await picture("letters");
  await type("#letters-filter", redriven.toUpperCase());
  await until("the filter does nothing", `document.querySelectorAll("#letters-list tbody tr").length === 1`);
  await click("#letters-list input");
  await press("Redrive 1");
  await until("nothing is said", has("messages", "1 dead letter: another attempt is asked for."));
  for (let tries = 0; (await outcome(11, redriven)) !== "succeeded" && tries < 100; tries += 1) await pause(100);
  equal(await outcome(11, redriven), "succeeded", "the job that was redriven");

  await type("#letters-filter", "no event");
  await until("the other letter is not there", `document.querySelectorAll("#letters-list input").length === 1`);
  await click("#letters-list input");
  await press("Discard 1");
  await until("there is no question", `document.getElementById("confirm").open`);
  await picture("confirm");
  await click("#confirm-no");
  await pause(100);
  equal(sql("SELECT count(*) FROM dead_letters WHERE discarded_at IS NULL"), "1", "letters after a no");
  await press("Discard 1");
  await click("#confirm-yes");
  await until("it is not discarded", has("messages", "1 dead letter: discarded."));
  equal(sql("SELECT count(*) FROM dead_letters WHERE discarded_at IS NULL"), "0", "letters after a yes");
  ok("a dead letter is redriven, another one discarded after a question");
  return [coupon, redriven];
}

async function findJob(coupon, jobId) {
  await goTo("#jobs");
  await until("no jobs are listed", `document.querySelectorAll("#jobs-list tbody tr").length === 50`);
  await type("#jobs-form [name=user]", "11");
  await type("#jobs-form [name=coupon]", String(coupon));
  await click("#jobs-form button");
  await until("the job is not found", `document.querySelectorAll("#jobs-list tbody tr").length === 1 && ${has("jobs-list", jobId)}`);
  await click("#jobs-list a");
  await until("its story is not told", `document.querySelector("#story .timeline") !== null`);
  const steps = await run(`[...document.querySelectorAll("#story .timeline strong")].map((step) => step.textContent)`);
  equal(steps.join(), "accepted,dead-lettered,redriven,taken-up,settled", "the job's timeline");
  await picture("job", true);
  ok("a job is found, and its timeline shown");
}

async function pinAndLookBack(coupon) {
  await goTo("#keys");
  await type("#pin-form [name=key]", String(coupon));
  await click("#pin-form button");
  await until("it is not pinned", has("pins", `coupon ${coupon}`));
  await picture("keys");
  await press("Unpin");
  await until("it is not unpinned", has("pins", "Nothing is pinned."));
  await goTo("#audit");
  await until("the log tells nothing", ["unpin", "discard-dead-letter", "redrive-dead-letter"].map((action) => has("audit-list", action)).join(" && "));
  await picture("audit");
  ok("a key is pinned and unpinned, and the audit log tells of all that was done");
}

/** Of a family that the API can halt. */
async function haltAndResume() {
  await goTo("#lines");
  await until("the families are not shown", has("families", "coupon"));
  await press("Halt");
  await click("#confirm-yes");
  await until("it is not halted", `${has("families", "halted")} && ${has("sum-lines", "coupon halted")}`);
  await picture("halted");
  await press("Resume");
  await until("it is not resumed", `!${has("families", "halted")}`);
  ok("a family is halted after a question, and resumed");
}

async function costLittle() {
  await goTo("#jobs");
  await pause(500);
  const measure = async (seconds) => {
    const before = [looks, used()];
    await pause(seconds * 1000);
    return [looks - before[0], ((used() - before[1]) / seconds) * 100];
  };
  const [none, idle] = await measure(3);
  equal(none, 0, "looks at the lines while they are not shown");
  await goTo("#lines");
  await pause(300);
  const [some, shown] = await measure(3);
  check(some >= 2 && some <= 4, `${some} looks at the lines in 3 s`);
  const hide = (isHidden) =>
    run(`Object.defineProperty(document, "hidden", { value: ${isHidden}, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`);
  await hide(true);
  equal((await measure(1.2))[0], 0, "looks at the lines while the page is hidden");
  await hide(false);
  const cost = Math.max(0, shown - idle);
  check(cost < 2, `the page costs the API ${cost.toFixed(1)}% of a core`);
  ok(`it asks once a second, only while it is looked at, and costs the API ${cost.toFixed(1)}% of a core (${shown.toFixed(1)}%, else ${idle.toFixed(1)}%)`);
}

async function loseConnection() {
  const conditions = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
  await chromium("Network.emulateNetworkConditions", { offline: true, ...conditions });
  await until("the loss is not told", has("lost", "Its last good answer came at"));
  await picture("lost");
  await chromium("Network.emulateNetworkConditions", { offline: false, ...conditions });
  await until("the page does not come back", `document.getElementById("lost").textContent === ""`);
  const [, waiting] = await series("plot-waiting");
  check(waiting.includes(null), "the plot tells something of when nothing was known");
  ok("the loss of the connection is told, and is a gap in the plot");
}

async function useKeyboard() {
  await run(`document.getElementById("skip").focus()`);
  const stops = [];
  for (let tries = 0; tries < 10; tries += 1) {
    await key("Tab");
    stops.push(await run("document.activeElement.id || document.activeElement.textContent.trim()"));
  }
  const expected = ["Lines", "Hot keys", "Dead letters", "Jobs", "Sale", "Audit log", "sign-out"];
  equal(stops.slice(0, expected.length).join(), expected.join(), "what the Tab key leads to");
  const outline = await run("getComputedStyle(document.activeElement).outlineStyle");
  equal(outline, "solid", "the outline of what has the focus");
  ok("it works by keyboard");
}

async function beNarrow(coupon, jobId) {
  await size(360, 740, true);
  for (const section of SECTIONS) {
    await goTo({ sale: `#sale/coupon/${coupon}`, jobs: `#jobs/${jobId}?user=11` }[section] ?? `#${section}`);
    await pause(250);
    const [wide, screen] = await run("[document.documentElement.scrollWidth, innerWidth]");
    equal([wide, screen].join(), "360,360", `the width of ${section}`);
    await picture(`narrow-${section}`, true);
  }
  await size(1440, 900, true);
  await goTo("#lines");
  await pause(1_200);
  await picture("dark", true);
  equal(await run("getComputedStyle(document.body).backgroundColor"), "rgb(17, 21, 27)", "the colour behind it all");
  ok("at 360 px nothing scrolls sideways; it is dark where that is wanted");
}

async function beAuditor(coupon) {
  await size(1440, 900);
  const before = loads;
  // It may be gone before it can answer.
  await click("#sign-out").catch(() => {});
  for (let tries = 0; loads === before && tries < 100; tries += 1) await pause(50);
  await signIn(AUDITOR_TOKEN);
  await until("no auditor is signed in", has("who", "user 2, auditor"));
  noEvent();
  await request("PUT", `/api/admin/pins/coupon/${coupon}`, ADMIN_TOKEN);
  for (const [section, shown] of [["letters", "no event"], ["keys", `coupon ${coupon}`], ["lines", "coupon"]]) {
    await goTo(`#${section}`);
    await until(`an auditor does not see ${section}`, has({ letters: "letters-list", keys: "pins", lines: "families" }[section], shown));
    const buttons = await run(`[...document.querySelectorAll("#part-${section} button")].filter((button) => button.checkVisibility()).map((button) => button.textContent)`);
    const changing = buttons.filter((button) => /Redrive|Discard|Pin|Unpin|Halt|Resume|Choose/.test(button));
    equal(changing.join(), "", `what an auditor is offered in ${section}`);
  }
  const [times, waiting] = await series("plot-waiting");
  check(times[0] < times.at(-1) - 15 && Math.max(...waiting) > 0, `a page that was opened late tells nothing of before: ${times[0]}, ${times.at(-1)}`);
  await picture("auditor");
  const status = await run(
    `fetch("/api/admin/dead-letters/redrive", { method: "POST", headers: { authorization: "Bearer ${AUDITOR_TOKEN}" } }).then(({ status }) => status)`,
  );
  equal(status, 403, "a redrive that an auditor asks for");
  ok("an auditor sees it all, is offered no change, and is refused one");
}

try {
  await comeIn();
  const sold = await holdSale();
  const [drifted, jobId] = await dealWithLetters();
  await findJob(drifted, jobId);
  await pinAndLookBack(sold);
  await haltAndResume();
  await costLittle();
  await loseConnection();
  await useKeyboard();
  await beNarrow(sold, jobId);
  await beAuditor(sold);
  equal(troubles.join("\n"), "", "errors in the page");
  ok("no error, and nothing that its policy forbids");
} catch (error) {
  console.error(`ops: FAIL ${error.message}${troubles.length ? `\n${troubles.join("\n")}` : ""}`);
  await picture("failed").catch(() => {});
  process.exitCode = 1;
} finally {
  agent.destroy();
  await browser.close();
}
