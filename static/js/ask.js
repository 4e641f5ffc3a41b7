// Asking without leaving the page: streams the answer, stops it, joins it again, and never loses a typed question.

import { keeper } from "./keep.js";
import { LiveAnswer } from "./live.js";
import { ConnectionError, ProblemError, csrfToken, readEvents } from "./stream.js";

const NOBODY = "00000000-0000-0000-0000-000000000000";
const WAITS = [500, 2000]; // before an answer is joined again, in milliseconds
const JOINABLE = 10 * 60e3; // the server keeps an answer's events this long
const form = document.querySelector("[data-composer]");
const box = document.querySelector("#question"); // not by form.question: the examples carry that name too
const continued = form?.elements.namedItem("conversation");
const words = document.querySelector("[data-live-words]").dataset;
const status = document.querySelector("[data-status]");
const draft = keeper("draft"), inFlight = keeper("in-flight");
let running = null, leaving = false;

function say(text, { signIn = false } = {}) {
  const alert = form.querySelector("[data-problem]");
  const link = alert.querySelector("[data-problem-sign-in]");
  alert.querySelector("[data-problem-text]").textContent = text;
  alert.hidden = !text;
  link.hidden = !signIn;
  if (signIn) link.href = `${form.dataset.signIn}?${new URLSearchParams({ next: location.pathname })}`;
}

function describe(error) {
  if (!(error instanceof ProblemError)) return words.offline;
  const fields = (error.problem.errors || []).map((one) => one.detail).join(" ");
  return fields || error.problem.detail || words.offline;
}

function setRunning(value) {
  running = value;
  form.querySelector("[data-stop]").hidden = !value;
  form.querySelector("[data-ask]").hidden = Boolean(value);
  for (const button of document.querySelectorAll("button[form=composer], [data-retry] button")) button.disabled = Boolean(value);
}

function write(text) {
  box.value = text;
  draft.set(text);
}

function giveBack(question) {
  if (!box.value) write(question);
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", resolve);
  });
}

/** A conversation that begins on this page has its title at once, and its settings as soon as it is there. */
function showHead(title, path) {
  const head = document.querySelector("[data-conversation-head]"), link = head.querySelector("a");
  let heading = head.querySelector("h1");
  if (!heading) {
    heading = document.createElement("h1");
    heading.id = "conversation-title";
    head.prepend(heading);
  }
  heading.textContent = title;
  head.hidden = false;
  link.hidden = !path;
  if (!path) return;
  link.href = `${path}settings/`;
  link.setAttribute("hx-get", link.href);
  window.htmx?.process(link);
}

async function finish(live, done) {
  inFlight.set(null);
  if (done.conversation) {
    continued.value = done.conversation;
    const path = form.dataset.conversationPath.replace(NOBODY, done.conversation);
    if (location.pathname !== path) {
      history.replaceState(null, "", path);
      showHead(done.question, path);
    }
    window.htmx?.trigger(document.body, "history-changed");
  }
  box.placeholder = box.dataset.followUp;
  status.textContent = status.dataset.complete;
  live.end(done.answered ? "answered" : "unanswered", "");
  say((done.warnings || []).join(" ")); // a budget is near its end
  const path = form.dataset.answerPath.replace(NOBODY, done.request_id) + (done.stale ? "?stale" : "");
  const response = await fetch(path, { credentials: "same-origin" });
  if (response.ok && !response.redirected) live.replace(await response.text());
}

function take(live, event) {
  if (event.type === "sources") live.showSources(event.data);
  else if (event.type === "answer_chunk") live.add(event.data);
  else if (event.type === "citation") live.cite(event.data);
  else if (event.type === "restart") live.restart(event.data.reason);
  else if (event.type === "error") throw new ProblemError(event.data);
  return event.type === "done" ? event.data : null;
}

/** Reads an answer to its end; a connection that breaks is made again, once or twice. Returns what `done` says. */
async function readAll(live, run, events) {
  for (let tries = 0; ; tries++) {
    try {
      let first = true, done = null;
      for await (const event of events) {
        if (first && tries) live.restart();
        first = false;
        run.begun = true;
        done = take(live, event) || done;
      }
      return done;
    } catch (error) {
      const final = !(error instanceof ConnectionError) || run.controller.signal.aborted || !run.id || tries >= WAITS.length;
      if (final) throw error;
      live.state.textContent = words.again;
      status.textContent = status.dataset.again;
      await pause(WAITS[tries], run.controller.signal);
      events = join(run);
    }
  }
}

function join(run) {
  return readEvents(form.dataset.attach.replace(NOBODY, run.id), { signal: run.controller.signal });
}

async function follow(question, run, events) {
  const live = new LiveAnswer(question, { documentPath: form.dataset.documentPath });
  let done = null;
  say("");
  setRunning(run);
  status.textContent = status.dataset.searching;
  document.querySelectorAll("[data-intro]").forEach((part) => { part.hidden = true; });
  if (!continued.value) showHead(question);
  document.querySelector("[data-thread-page]").classList.add("has-answers");
  document.querySelector("[data-thread]").append(live.element);
  live.element.scrollIntoView({ block: "start" });
  try {
    done = await readAll(live, run, events);
    await finish(live, done);
  } catch (error) {
    if (leaving) return; // the page goes away, and with it its connection: the next one joins the answer again
    if (!(error instanceof ProblemError || error instanceof ConnectionError)) reportError(error);
    if (done) return; // the answer is there, only its final rendering did not come: what was streamed stays
    inFlight.set(null);
    giveBack(question);
    if (run.controller.signal.aborted) {
      status.textContent = status.dataset.stopped;
      live.end("stopped", words.stopped);
      return;
    }
    const broken = run.begun && (!(error instanceof ProblemError) || error.status === 404);
    if (run.begun) live.end("failed", broken ? words.broken : describe(error));
    else live.element.remove();
    say(broken ? words.broken : describe(error), { signIn: error.status === 401 });
  } finally {
    setRunning(null);
  }
}

function ask(question, { fresh = false } = {}) {
  const data = new FormData(form);
  const body = { question, collections: data.getAll("collections"), tags: data.getAll("tags") };
  if (continued.value) body.conversation = continued.value;
  if (fresh) body.cache = false;
  const run = { controller: new AbortController(), id: "", begun: false };
  const onBegin = (id) => {
    run.id = id;
    draft.set(box.value);
    inFlight.set({ id, question, conversation: continued.value, at: Date.now() });
  };
  if (box.value.trim() === question) box.value = "";
  draft.set(question); // until the server has it
  return follow(question, run, readEvents(form.dataset.stream, { body, signal: run.controller.signal, onBegin }));
}

/** After a reload: goes on with the answer that was being given. */
function comeBack() {
  const left = inFlight.get();
  if (!left || Date.now() - left.at > JOINABLE) return;
  if (document.getElementById(`answer-${left.id}`)) return void inFlight.set(null);
  if (left.conversation !== continued.value) return;
  // Who went to the first page by a link wants a new question; who reloaded it, the old one.
  const chosen = performance.getEntriesByType("navigation")[0]?.type === "navigate";
  if (!left.conversation && chosen) return void inFlight.set(null);
  const run = { controller: new AbortController(), id: left.id, begun: true };
  follow(left.question, run, join(run));
}

function stop() {
  if (!running) return;
  // The server would wait for us to come back: it is told that we shall not.
  if (running.id) {
    const path = form.dataset.attach.replace(NOBODY, running.id);
    fetch(path, { method: "DELETE", headers: { "X-CSRFToken": csrfToken() }, credentials: "same-origin", keepalive: true }).catch(() => {});
  }
  running.controller.abort();
}

function edit(question) {
  write(question);
  box.focus();
  box.setSelectionRange(question.length, question.length);
  form.scrollIntoView({ block: "nearest" });
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return;
    const example = event.submitter?.name === "question" ? event.submitter.value : "";
    const question = (example || box.value).trim();
    if (question.length >= 3) ask(question);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-retry]")) return;
    event.preventDefault();
    if (!running) ask(event.target.elements.namedItem("question").value, { fresh: true });
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-edit]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    edit(link.closest("[data-answer]").querySelector(".question").textContent);
  });
  form.querySelector("[data-stop]").addEventListener("click", stop);
  box.addEventListener("input", () => draft.set(box.value));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!running) form.requestSubmit(form.querySelector("[data-ask]"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog[open]")) stop();
  });
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });
  comeBack();
  giveBack(draft.get() || "");
}
