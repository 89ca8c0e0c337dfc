// A client of Firstcome, for browsers and Node 18 or newer: asks for something once, and stays until it is known
// how that ended. It needs nothing but fetch.

/** The answer that repeating would not change. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.name = "Refused";
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.problem = problem;
  }
}

/**
 * The Idempotency-Key of one intention: the same after a retry and after a reload, since it lies in `storage`
 * (sessionStorage, in a browser). `forget` it when the user wants the same thing once more.
 */
export function keyOf(storage, intention) {
  const name = `firstcome:${intention}`;
  const key = storage.getItem(name) ?? crypto.randomUUID();
  storage.setItem(name, key);
  return key;
}

export function forget(storage, intention) {
  storage.removeItem(`firstcome:${intention}`);
}

/**
 * Submits a job and waits for its outcome, which is returned: a job whose status is succeeded, rejected or failed.
 *
 * @param {object} wish
 * @param {string} wish.api      such as https://api.shop.example
 * @param {string} wish.token    the caller's JWT
 * @param {string} wish.path     such as /api/coupons/1/issue or /api/orders
 * @param {object} [wish.body]   of an order
 * @param {string} wish.key      see `keyOf`
 * @param {(job: object) => void} [wish.onPlace]  is told the place in line: position, estimatedSeconds
 * @param {number} [wish.patience] milliseconds, after which it gives up
 */
export async function take({ onPlace = () => {}, patience = 10 * 60_000, ...wish }) {
  const until = Date.now() + patience;
  const { job, after } = await submit(wish, until);
  onPlace(job);
  // 202 says when the outcome is likely to be there.
  if (after !== null) await pause(after, 0, until);
  return settled(wish, job, onPlace, until);
}

/** Repeats with the same key until the job is accepted: then it is one job, whatever got lost on the way. */
async function submit({ api, token, path, body, key }, until) {
  const headers = { authorization: `Bearer ${token}`, "idempotency-key": key };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await insist(api + path, until, {
    method: "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return { job: await answer.json(), after: retryAfter(answer) };
}

/** Server-sent events where the API has them, else polls that are held until something happens. */
async function settled({ api, token }, { jobId }, onPlace, until) {
  for (let faults = 0; ; ) {
    const answer = await insist(`${api}/api/jobs/${jobId}`, until, {
      headers: {
        authorization: `Bearer ${token}`,
        accept: "text/event-stream, application/json;q=0.5",
        prefer: "wait=5",
      },
    });
    try {
      let job;
      if (answer.headers.get("content-type")?.startsWith("text/event-stream")) {
        for await (const { event, data } of events(answer.body)) {
          job = JSON.parse(data);
          if (event === "settled") return job;
          onPlace(job);
        }
        await pause(null, 0, until);
      } else {
        job = await answer.json();
        if (job.status !== "queued") return job;
        onPlace(job);
        await pause(retryAfter(answer) ?? 1, 0, until);
      }
      faults = 0;
    } catch (error) {
      // The connection was cut in the middle of the answer.
      if (Date.now() >= until) throw error;
      await pause(null, faults++, until);
    }
  }
}

/** Asks until there is an answer that counts: one of success, or one that repeating would not change. */
async function insist(url, until, request) {
  for (let faults = 0; ; faults += 1) {
    let answer;
    try {
      answer = await fetch(url, { ...request, cache: "no-store" });
    } catch (error) {
      // No answer: nobody knows whether it was heard. The key makes it safe to ask again.
      if (Date.now() >= until) throw error;
      await pause(null, faults, until);
      continue;
    }
    if (answer.ok) return answer;
    const after = retryAfter(answer);
    const passes = [408, 429].includes(answer.status) || answer.status >= 500;
    if (!passes && !(answer.status === 409 && after !== null)) {
      throw new Refused(answer.status, await answer.json().catch(() => ({})));
    }
    // There may be too many streams: then it polls.
    if (answer.status === 503) delete request.headers.accept;
    await answer.body?.cancel();
    await pause(after, faults, until);
  }
}

function retryAfter(answer) {
  const seconds = answer.headers.get("retry-after");
  return /^\d+$/.test(seconds ?? "") ? Number(seconds) : null;
}

/** What the server asks for, else longer each time; and a bit more, so that not all come back at once. */
async function pause(after, faults, until) {
  const seconds = after === null ? Math.min(0.5 * 2 ** faults, 15) : after;
  const wait = seconds * 1000 + Math.random() * (after === null ? seconds * 500 : 250);
  if (Date.now() + wait > until) throw new Error("gave up: it took too long");
  await new Promise((done) => setTimeout(done, wait));
}

/** The events of a stream, as the HTML standard says that they are read. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let [event, data] = ["message", []];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      text += decoder.decode(value, { stream: !done });
      // A carriage return may be the half of a line end.
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      text = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { event, data: data.join("\n") };
          [event, data] = ["message", []];
        } else {
          const [, field, content] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
          if (field === "event") event = content ?? "";
          if (field === "data") data.push(content ?? "");
        }
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
