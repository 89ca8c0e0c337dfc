// Talks to the API, in the name of the operator whose token it holds: in this variable, and nowhere else.

const PATIENCE = 10_000;

let token = null;
let operator = null;

/** `answered` and `lost` (each with when the last good answer came), `denied` (with the trouble). */
export const events = new EventTarget();
let lastGood = null;

/** An answer that is an error, or that did not come. */
export class Trouble extends Error {
  constructor({ status = 0, code = "no-answer", detail, errors = [], requestId }) {
    super(detail);
    Object.assign(this, { status, code, detail, errors, requestId });
  }
}

const tell = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));

/** Asks, and reads the answer, if there is anything in it. */
export async function ask(method, path, query) {
  const url = query?.size ? `${path}?${query}` : path;
  let response;
  let text;
  try {
    response = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${token}`, accept: "application/json" },
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    text = await response.text();
  } catch {
    tell("lost", lastGood);
    throw new Trouble({ detail: "No answer from the API." });
  }
  if (response.ok) {
    lastGood = new Date();
    tell("answered", lastGood);
    return text ? JSON.parse(text) : null;
  }
  const trouble = problem(response, text);
  if (response.status === 401) {
    signOut();
    tell("denied", trouble);
  }
  throw trouble;
}

/** What the API tells of an error; whoever stands before it may tell nothing. */
function problem(response, text) {
  const { status, headers } = response;
  const told = { status, code: String(status), detail: response.statusText || "The answer tells no reason." };
  const isProblem = headers.get("content-type")?.startsWith("application/problem+json");
  try {
    return new Trouble(isProblem ? { ...told, ...JSON.parse(text) } : told);
  } catch {
    return new Trouble(told);
  }
}

export const get = (path, query) => ask("GET", path, query);

/** Signs in with a token, if the API knows it as an operator's. */
export async function signIn(given) {
  const text = given.trim().replace(/^Bearer\s+/i, "");
  if (!/^[\x21-\x7e]+$/.test(text)) throw new Trouble({ code: "no token", detail: "This is no token." });
  token = text;
  try {
    operator = await get("/api/admin/caller");
  } catch (error) {
    signOut();
    throw error;
  }
  return operator;
}

export function signOut() {
  token = null;
  operator = null;
}

export const isSignedIn = () => operator !== null;
/** Whether the operator may change things. */
export const mayChange = () => operator?.role === "admin";
