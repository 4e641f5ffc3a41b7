// Hands out the events of an answer as they come (NDJSON: one JSON object a line).

/** What the server says is wrong (RFC 9457), before the stream or in it. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || "");
    this.status = problem.status || 0;
    this.problem = problem;
  }
}

/** The server was not reached, or the connection broke before the answer's end. */
export class ConnectionError extends Error {}

const connected = (promise) => promise.catch((error) => { throw new ConnectionError(error.message, { cause: error }); });

/**
 * Yields events; throws ProblemError or ConnectionError (also when the signal was used).
 *
 * With a `body` it asks, without one it joins an answer that is being given. `X-Linger` asks the server to go on for a
 * while after the connection is gone, since the page may come back.
 */
export async function* readEvents(url, { body, signal, onBegin = () => {} }) {
  const headers = { Accept: "application/x-ndjson" };
  if (body) Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": csrfToken(), "X-Linger": "1" });
  const response = await connected(fetch(url, {
    method: body ? "POST" : "GET",
    headers,
    body: body && JSON.stringify(body),
    credentials: "same-origin",
    signal,
  }));
  if (!response.ok) {
    let problem = {};
    try { problem = await response.json(); } catch { /* a proxy's page, not ours */ }
    throw new ProblemError({ ...problem, status: response.status });
  }
  onBegin(response.headers.get("X-Request-ID"));
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "", ended = false;
  for (;;) {
    const { done, value } = await connected(reader.read());
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line) continue;
      const event = JSON.parse(line);
      ended ||= event.type === "done" || event.type === "error";
      yield event;
    }
    if (done && !ended) throw new ConnectionError("the stream ended too early");
    if (done) return;
  }
}

/** The CSRF token as it is now: another tab may have signed in again since this page was made. */
export function csrfToken() {
  const cookie = document.cookie.match(/(?:^|; )ragsite_csrf=([^;]+)/);
  const field = document.querySelector("input[name=csrfmiddlewaretoken]");
  return cookie ? decodeURIComponent(cookie[1]) : field ? field.value : "";
}
