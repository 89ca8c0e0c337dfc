// From nothing to a drop: an issuer of tokens, 50,000 users who are imported as it calls them, a page on another origin,
// a crowd that wants the same, and the list of who won.
// Needs PostgreSQL, RabbitMQ and Redis (`scripts/services run` brings them), the built programs in PATH, and Chromium
// (CHROMIUM names it).
import { execFileSync, spawn } from "node:child_process";
import { createPublicKey, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { take } from "../javascript/firstcome.mjs";
import { browse } from "./browser.mjs";

// Node 18 has it only here.
globalThis.crypto ??= (await import("node:crypto")).webcrypto;

const USERS = 50_000;
const COUPONS = 200;
const CROWD = 400;
// Customers by their numbers in the shop's old system: the one with a browser, and the first of the crowd.
const PAGE_USER = 49_999;
const FIRST_OF_CROWD = 1_000;

const began = performance.now();
const step = (text) => console.log(`${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`);
const check = (holds, what) => {
  if (!holds) throw new Error(what);
};
const folder = mkdtempSync(join(tmpdir(), "firstcome-shop-"));
const children = [];
const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

// --- The issuer: whoever the shop's users log in with. It alone has the private key. -----------------------

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwk = { ...createPublicKey(privateKey).export({ format: "jwk" }), kid: "2026", alg: "ES256", use: "sig" };
const issuer = http.createServer((_request, answer) => {
  answer.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ keys: [jwk] }));
});
await new Promise((done) => issuer.listen(0, "127.0.0.1", done));
const iss = `http://127.0.0.1:${issuer.address().port}`;

/** What the issuer calls a customer. */
const subject = (customer) => `auth0|${customer.toString(16).padStart(8, "0")}`;

function token(sub, claims = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const text = `${encode({ alg: "ES256", kid: jwk.kid })}.${encode({ sub, exp, iss, aud: "shop", ...claims })}`;
  const signature = sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return `${text}.${signature.toString("base64url")}`;
}

// --- The page, on an origin of its own ------------------------------------------------------------------------

const files = { "/": ["index.html", "text/html"], "/firstcome.mjs": ["firstcome.mjs", "text/javascript"] };
const page = http.createServer((request, answer) => {
  const [name, type] = files[request.url] ?? [];
  if (!name) return answer.writeHead(404).end();
  const path = fileURLToPath(new URL(`../javascript/${name}`, import.meta.url));
  answer.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(readFileSync(path));
});
await new Promise((done) => page.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${page.address().port}`;

// --- The shop ---------------------------------------------------------------------------------------------------

const port = await freePort();
const api = `http://127.0.0.1:${port}`;
const env = {
  ...process.env,
  JOB_ID_KEY: randomUUID(),
  JWT_JWKS_URL: `${iss}/jwks.json`,
  JWT_ISSUER: iss,
  JWT_AUDIENCE: "shop",
  // Nobody is called by a number. Who is not imported, as the operator, is a user from the first request on.
  JWT_SUBJECTS: "map",
  JWT_CREATE_USERS: "true",
  CORS_ORIGINS: origin,
  API_ADDR: `127.0.0.1:${port}`,
  DRAIN_SECONDS: "0",
};
// Not those of development: tokens are the issuer's.
for (const variable of ["JWT_SECRET", "JWT_PUBLIC_KEYS", "FIRSTCOME_DEV", "DATA_PLATFORM_URL"]) delete env[variable];
// A fault is told with what the programs logged.
const logs = [];
function start(program) {
  const child = spawn(program, [], { env, stdio: ["ignore", "ignore", "pipe"] });
  child.stderr.on("data", (text) => logs.push(text.toString()));
  child.on("error", (error) => logs.push(`${program}: ${error.message}\n`));
  children.push(child);
}

async function run() {
  const operator = { authorization: `Bearer ${token("auth0|operator", { name: "Operator", role: "admin" })}` };
  const once = (...command) => execFileSync(command[0], command.slice(1), { env, stdio: ["ignore", "ignore", "pipe"] });
  once("firstcome-worker", "migrate");
  step("an empty database has its schema");

  start("firstcome-worker");
  start("firstcome-api");
  for (let tries = 0; ; tries += 1) {
    const answer = await fetch(`${api}/health/ready`).catch(() => null);
    if (answer?.ok) break;
    check(tries < 300, "the API is not ready");
    await new Promise((done) => setTimeout(done, 100));
  }
  step("the shop is open, and believes the issuer's tokens");

  const imported = await fetch(`${api}/api/admin/imports/users`, {
    method: "POST",
    headers: { ...operator, "content-type": "text/csv" },
    body: table(),
    duplex: "half",
  });
  const report = await imported.json();
  // There may be some from the last time, whom this issuer calls otherwise.
  check(report.created + report.updated === USERS, `the import: ${imported.status} ${JSON.stringify(report)}`);
  step(`${USERS.toLocaleString("en")} users are imported, each with the subject of their tokens`);

  const now = Date.now();
  const answer = await fetch(`${api}/api/admin/coupons`, {
    method: "POST",
    headers: { ...operator, "content-type": "application/json" },
    body: JSON.stringify({
      name: "Launch day",
      discountType: "fixed",
      discountValue: 1000,
      total: COUPONS,
      startsAt: new Date(now - 1000).toISOString(),
      endsAt: new Date(now + 3_600_000).toISOString(),
    }),
  });
  check(answer.status === 201, `no drop: ${answer.status}`);
  const coupon = (await answer.json()).id;
  const path = `/api/coupons/${coupon}/issue`;
  step(`a drop of ${COUPONS} coupons has begun`);

  // The one with a browser comes first, so that it is certain that it gets one.
  const told = await browse(`${origin}/#api=${api}&token=${token(subject(PAGE_USER))}&coupon=${coupon}&go`);
  const number = /data-status="succeeded">You have number (\d+)\./.exec(told)?.[1];
  check(number === "1", `the page says: ${told}`);
  step(`a page at another origin got number ${number}`);

  const crowd = Array.from({ length: CROWD }, (_, index) => FIRST_OF_CROWD + index);
  let deepest = 0;
  const onPlace = ({ position = 0 }) => (deepest = Math.max(deepest, position));
  const ends = await Promise.allSettled(
    crowd.map((customer) => take({ api, token: token(subject(customer)), path, key: randomUUID(), onPlace })),
  );
  const codes = {};
  const numbers = [];
  // Who won, by number: the page's customer first.
  const winners = [PAGE_USER];
  for (const [index, { value: job, reason }] of ends.entries()) {
    // Refused at once, or by the line.
    const code = job?.error?.code ?? reason?.code ?? String(reason);
    if (job?.status === "succeeded") {
      numbers.push(job.result.issueNumber);
      winners[job.result.issueNumber - 1] = crowd[index];
    } else codes[code] = (codes[code] ?? 0) + 1;
  }
  numbers.sort((a, b) => a - b);
  check(numbers.length === COUPONS - 1, `${numbers.length} of the crowd got one; ${JSON.stringify(codes)}`);
  check(numbers.every((number, index) => number === index + 2), "a number is missing, or there twice");
  const refused = CROWD - COUPONS + 1;
  check(codes["coupon-sold-out"] === refused, `the others: ${JSON.stringify(codes)}`);
  step(`${CROWD} others asked at once: ${numbers.length} got numbers 2 to ${COUPONS}, ${refused} were told that it is sold out`);
  if (deepest > 0) step(`the deepest place in line that was told is ${deepest}`);

  const sold = await (await fetch(`${api}/api/coupons/${coupon}`)).json();
  check(sold.remaining === 0, `remaining: ${sold.remaining}`);

  const csv = await fetch(`${api}/api/admin/coupons/${coupon}/winners`, { headers: { ...operator, accept: "text/csv" } });
  const [columns, ...rows] = (await csv.text()).trimEnd().split("\r\n").map((line) => line.split(","));
  check(columns.slice(0, 3).join() === "userId,userCouponId,issueNumber", `the winners' table: ${columns}`);
  check(rows.length === COUPONS, `${rows.length} winners in the table`);
  await Promise.all(
    rows.map(async ([user, , number], index) => {
      check(Number(number) === index + 1, `number ${number} in row ${index + 1} of the winners' table`);
      // Whom the table names is whom the winner's token means: nobody else may read the balance.
      const headers = { authorization: `Bearer ${token(subject(winners[index]))}` };
      const read = await fetch(`${api}/api/balance/${user}`, { headers });
      const { balance } = await read.json();
      check(balance === opening(winners[index]), `user ${user} is not the winner of number ${number}: ${read.status}`);
    }),
  );
  step(`the table of the ${COUPONS} winners names, in order, who was told so`);

  once("firstcome-worker", "audit");
  step("nothing is left, and the audit finds nothing");
}

/** What a customer's balance begins with. */
const opening = (customer) => 1_000 + customer;

/** The customers, as their old system exports them. */
async function* table() {
  yield new TextEncoder().encode("name,email,balance,subject\n");
  for (let first = 1; first <= USERS; first += 500) {
    const customers = Array.from({ length: Math.min(500, USERS - first + 1) }, (_, index) => first + index);
    const row = (n) => `"Customer, No. ${n}",customer${n}@shop.example,${opening(n)},${subject(n)}\n`;
    yield new TextEncoder().encode(customers.map(row).join(""));
  }
}

try {
  await run();
} catch (error) {
  console.error(logs.join("").split("\n").slice(-30).join("\n"));
  console.error(`shop: FAIL ${error.message}${error.stderr ?? ""}`);
  process.exitCode = 1;
} finally {
  for (const server of [page, issuer]) {
    server.close();
    server.closeAllConnections?.();
  }
  const ended = children.map((child) => new Promise((done) => (child.exitCode === null ? child.on("close", done) : done())));
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(ended);
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
