// A drop, for k6: everybody asks for one coupon in the same second, and stays until they know how it ended.
//   for user in $(seq 1000); do firstcome-api token --user $user; done > tokens.txt
//   k6 run -e API=http://127.0.0.1:8080 -e COUPON=1 -e TOKENS=./tokens.txt examples/load/drop.js
import http from "k6/http";
import { sleep } from "k6";
import { SharedArray } from "k6/data";
import { Counter, Trend } from "k6/metrics";

const tokens = new SharedArray("tokens", () => open(__ENV.TOKENS).trim().split("\n"));
const known = new Trend("until_outcome_known", true);
const outcomes = new Counter("outcomes");

export const options = {
  scenarios: { drop: { executor: "per-vu-iterations", vus: tokens.length, iterations: 1, maxDuration: "5m" } },
  // Everybody gets an answer that is one.
  thresholds: { "outcomes{outcome:gave-up}": ["count==0"] },
};

export default function () {
  const began = Date.now();
  const token = tokens[(__VU - 1) % tokens.length];
  const headers = { Authorization: `Bearer ${token}`, "Idempotency-Key": `k6-${began}-${__VU}` };
  const outcome = ask("POST", `/api/coupons/${__ENV.COUPON}/issue`, headers, (accepted) => {
    const { jobId, status } = accepted.json();
    if (status !== "queued") return accepted.json();
    for (;;) {
      const poll = { Authorization: headers.Authorization, Prefer: "wait=10" };
      const job = ask("GET", `/api/jobs/${jobId}`, poll, (answer) => answer.json());
      if (job.status !== "queued") return job;
      sleep(1 + Math.random());
    }
  });
  known.add(Date.now() - began);
  outcomes.add(1, { outcome: outcome.error ? outcome.error.code : outcome.status });
}

/** Repeats with the same key what passes; an answer that repeating would not change is told as an outcome. */
function ask(method, path, headers, then) {
  for (let tries = 0; tries < 20; tries += 1) {
    const answer = http.request(method, __ENV.API + path, null, { headers, tags: { name: path.split("/")[2] } });
    if (answer.status >= 200 && answer.status < 300) return then(answer);
    const after = Number(answer.headers["Retry-After"] || Math.min(2 ** tries / 2, 15));
    // 0 is no answer at all.
    const passes = [0, 408, 429].includes(answer.status) || answer.status >= 500;
    if (!passes && !(answer.status === 409 && answer.headers["Retry-After"])) {
      return { error: { code: answer.json("code") } };
    }
    sleep(after + Math.random() / 4);
  }
  return { error: { code: "gave-up" } };
}
