// POSTs a question and hands out the events of its answer as they come (NDJSON: one JSON object a line).

/** What the server says is wrong (RFC 9457), before the stream or in it. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || "");
    this.status = problem.status || 0;
    this.problem = problem;
  }
}

/** The server was not reached, or the connection broke. */
export class ConnectionError extends Error {}

const connected = (promise) => promise.catch((error) => { throw new ConnectionError(error.message, { cause: error }); });

/** Yields events; throws ProblemError or ConnectionError (also when the signal was used). */
export async function* readEvents(url, body, { token, signal }) {
  const response = await connected(fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/x-ndjson", "X-CSRFToken": token },
    body: JSON.stringify(body),
    credentials: "same-origin",
    signal,
  }));
  if (!response.ok) {
    let problem = {};
    try { problem = await response.json(); } catch { /* a proxy's page, not ours */ }
    throw new ProblemError({ ...problem, status: response.status });
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await connected(reader.read());
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
    if (done) return;
  }
}

/** The CSRF token as it is now: another tab may have signed in again since this page was made. */
export function csrfToken() {
  const cookie = document.cookie.match(/(?:^|; )ragsite_csrf=([^;]+)/);
  const field = document.querySelector("input[name=csrfmiddlewaretoken]");
  return cookie ? decodeURIComponent(cookie[1]) : field ? field.value : "";
}
