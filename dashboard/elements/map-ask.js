// Questions to the routes below /api/map, and what is refused.

import { say, told } from "./words.js";

const TIMEOUT_MS = 10000;
export const UPLOAD_TIMEOUT_MS = 120000; // 16 MB over a slow line, and the plan of it

/** Something that was not done: why, and the answer's status and body (0: nobody answered). */
export class Refused extends Error {
  constructor(status, message, body = {}) {
    super(message);
    this.status = status;
    this.body = body;
  }

  /** Why, in the page's language. */
  get why() {
    return told(this.body, "error") ?? this.message;
  }

  /** What to do, in the page's language; or nothing. */
  get hint() {
    return told(this.body, "hint") ?? "";
  }
}

/** A JSON answer. Throws `Refused`. */
export async function ask(path, { timeoutMs = TIMEOUT_MS, ...options } = {}) {
  let response;
  let body;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeoutMs), ...options });
    body = await response.json();
  } catch {
    throw new Refused(0, say("no_answer"));
  }
  if (response.status === 401) location.reload(); // the session is over: it leads to the login
  if (!response.ok) throw new Refused(response.status, response.statusText, body);
  return body;
}

/** Bytes of a map for a route; `over` is the hash of the map that the author has seen running. */
export function upload(path, bytes, over) {
  const headers = { "Content-Type": "application/octet-stream", ...(over ? { "If-Match": over } : {}) };
  return ask(path, { method: "POST", body: bytes, headers, timeoutMs: UPLOAD_TIMEOUT_MS });
}

/** Have something done that needs no bytes. */
export function post(path, over) {
  const headers = { "Content-Type": "application/json", "If-Match": over };
  return ask(path, { method: "POST", body: "{}", headers, timeoutMs: UPLOAD_TIMEOUT_MS });
}
