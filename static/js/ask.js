// Asking without leaving the page: streams the answer, stops it, and never loses a typed question.

import { LiveAnswer } from "./live.js";
import { ConnectionError, ProblemError, csrfToken, readEvents } from "./stream.js";

const KEPT = "ragsite-question";
const NOBODY = "00000000-0000-0000-0000-000000000000";
const form = document.querySelector("[data-composer]");
const box = document.querySelector("#question"); // not by form.question: the examples carry that name too
const continued = form?.elements.namedItem("conversation");
const words = document.querySelector("[data-live-words]").dataset;
const status = document.querySelector("[data-status]");
let running = null;

function keep(text) {
  try {
    if (text) sessionStorage.setItem(KEPT, text);
    else sessionStorage.removeItem(KEPT);
  } catch { /* without storage the question is kept in the box alone */ }
}

function kept() {
  try { return sessionStorage.getItem(KEPT) || ""; } catch { return ""; }
}

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

function setRunning(controller) {
  running = controller;
  form.querySelector("[data-stop]").hidden = !controller;
  form.querySelector("[data-ask]").hidden = Boolean(controller);
  for (const button of document.querySelectorAll("button[form=composer]")) button.disabled = Boolean(controller);
}

function giveBack(question) {
  if (!box.value) box.value = question;
}

function addRecent(id, title) {
  const aside = document.querySelector("[data-recent]");
  const path = form.dataset.conversationPath.replace(NOBODY, id);
  if (aside.querySelector(`a[href="${path}"]`)) return;
  aside.hidden = false;
  for (const current of aside.querySelectorAll("[aria-current]")) current.removeAttribute("aria-current");
  const link = document.createElement("a");
  link.href = path;
  link.textContent = title;
  link.setAttribute("aria-current", "page");
  const item = document.createElement("li");
  item.append(link);
  aside.querySelector("ul").prepend(item);
}

async function finish(live, done, question) {
  keep("");
  if (done.conversation) {
    continued.value = done.conversation;
    addRecent(done.conversation, question);
    history.replaceState(null, "", form.dataset.conversationPath.replace(NOBODY, done.conversation));
  }
  box.placeholder = box.dataset.followUp;
  status.textContent = status.dataset.complete;
  live.end(done.answered ? "answered" : "unanswered", "");
  const response = await fetch(form.dataset.answerPath.replace(NOBODY, done.request_id), { credentials: "same-origin" });
  if (response.ok && !response.redirected) live.replace(await response.text());
}

async function ask(question) {
  const controller = new AbortController();
  const data = new FormData(form);
  const body = { question, collections: data.getAll("collections"), tags: data.getAll("tags") };
  if (continued.value) body.conversation = continued.value;
  const live = new LiveAnswer(question, { documentPath: form.dataset.documentPath });
  let begun = false, done = null;

  say("");
  keep(question);
  setRunning(controller);
  status.textContent = status.dataset.searching;
  document.querySelectorAll("[data-intro]").forEach((part) => { part.hidden = true; });
  document.querySelector("[data-thread-page]").classList.add("has-answers");
  document.querySelector("[data-thread]").append(live.element);
  box.value = "";
  live.element.scrollIntoView({ block: "start" });

  try {
    for await (const event of readEvents(form.dataset.stream, body, { token: csrfToken(), signal: controller.signal })) {
      begun = true;
      if (event.type === "sources") live.showSources(event.data);
      else if (event.type === "answer_chunk") live.add(event.data);
      else if (event.type === "citation") live.cite(event.data);
      else if (event.type === "restart") live.restart(event.data.reason);
      else if (event.type === "error") throw new ProblemError(event.data);
      else if (event.type === "done") done = event.data;
    }
    if (done) await finish(live, done, question);
    else throw new ProblemError({ detail: words.broken });
  } catch (error) {
    if (!(error instanceof ProblemError || error instanceof ConnectionError)) reportError(error);
    if (done) return; // the answer is there, only its final rendering did not come: what was streamed stays
    giveBack(question);
    if (controller.signal.aborted) {
      status.textContent = status.dataset.stopped;
      live.end("stopped", words.stopped);
    } else {
      if (begun) live.end("failed", error instanceof ProblemError ? describe(error) : words.broken);
      else live.element.remove();
      say(begun && !(error instanceof ProblemError) ? words.broken : describe(error), { signIn: error.status === 401 });
    }
  } finally {
    setRunning(null);
  }
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return;
    const example = event.submitter?.name === "question" ? event.submitter.value : "";
    const question = (example || box.value).trim();
    if (question.length >= 3) ask(question);
  });
  form.querySelector("[data-stop]").addEventListener("click", () => running?.abort());
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!running) form.requestSubmit(form.querySelector("[data-ask]"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) running.abort();
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
    }
  });
  giveBack(kept());
}
