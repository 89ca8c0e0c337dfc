// What the page of a drop says in the end, in a headless Chromium (CHROMIUM names it).
// As a program: node browser.mjs URL prints it.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// Without the sandbox, since root has none; it opens this page alone. It is steered through a pipe.
const FLAGS = `--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
  --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe`.split(/\s+/);
const DEADLINE = 60_000;
const LOOK_EVERY = 50;

/** A browser for so long at most: `ask` steers it, `tell` gets its events, `close` ends it. */
export function launch({ deadline = DEADLINE, tell = () => {} } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "firstcome-browser-"));
  const child = spawn(process.env.CHROMIUM ?? "chromium", [...FLAGS, `--user-data-dir=${folder}`, "about:blank"], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    timeout: deadline,
  });
  const ended = new Promise((done) => child.on("error", done).on("close", done));
  const ask = steer(child, ended, tell);
  const close = async () => {
    // It waits for its own children, which write to the folder to their end; `timeout` above if it does not.
    await ask("Browser.close").catch(() => {});
    await ended;
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  };
  return { ask, close };
}

/** The page's output once it tells how it ended; as it is by then if that takes too long. */
export async function browse(url) {
  const until = Date.now() + DEADLINE;
  const { ask, close } = launch();
  try {
    const { targetId } = await ask("Target.createTarget", { url });
    const { sessionId } = await ask("Target.attachToTarget", { targetId, flatten: true });
    const expression = `(({ dataset, outerHTML }) => [dataset.status, outerHTML])(document.querySelector("output"))`;
    for (;;) {
      const { result } = await ask("Runtime.evaluate", { expression, returnByValue: true }, sessionId);
      // Before it is loaded, there is no such element.
      const [status, text] = Array.isArray(result.value) ? result.value : [];
      if (status || (text && Date.now() > until - 5_000)) return text;
      await new Promise((done) => setTimeout(done, LOOK_EVERY));
    }
  } finally {
    await close();
  }
}

/** Chromium's own protocol: JSON, each message ended by a zero. */
function steer(child, ended, tell) {
  const [, , , commands, answers] = child.stdio;
  const waiting = new Map();
  let [last, text] = [0, ""];
  answers.setEncoding("utf8").on("data", (part) => {
    const messages = (text + part).split("\0");
    text = messages.pop();
    for (const { id, result, error, ...event } of messages.map((message) => JSON.parse(message))) {
      if (id === undefined) tell(event);
      const { done, fail } = waiting.get(id) ?? {};
      waiting.delete(id);
      if (error) fail?.(new Error(`chromium: ${error.message}`));
      else done?.(result);
    }
  });
  commands.on("error", () => {});
  const gone = ended.then((how) => Promise.reject(new Error(`chromium ended: ${how}`)));
  gone.catch(() => {});
  return (method, params, sessionId) => {
    const answer = new Promise((done, fail) => waiting.set(++last, { done, fail }));
    commands.write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
    return Promise.race([answer, gone]);
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await browse(process.argv[2]));
