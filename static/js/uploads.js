// Many files and folders at once: dropped or chosen, sent three at a time, each with its own progress. What has arrived
// becomes a row of the server's, which follows its job; one request tells how all of them are.

import { csrfToken } from "./stream.js";

const AT_ONCE = 3;
const MOST = 5000;
const panel = document.querySelector("[data-upload]");
const form = panel.querySelector("[data-upload-form]");
const words = form.dataset;
const list = panel.querySelector("[data-uploads]");
const start = form.querySelector("[data-upload-start]");
const drop = form.querySelector("[data-drop]");
const alertBox = form.querySelector("[data-upload-alert]");
const endings = new Set(words.endings.split(","));
/** What waits to be sent or is being sent: { file, path, row, state: ready|queued|sending|failed, request }. */
const entries = new Set();

function complain(text) {
  alertBox.textContent = text;
  alertBox.hidden = !text;
}

function open() {
  panel.hidden = false;
  panel.scrollIntoView({ block: "nearest" });
}

function inState(...states) {
  return [...entries].filter((entry) => states.includes(entry.state));
}

function tell() {
  const ready = inState("ready").length;
  start.textContent = ready === 1 ? words.startOne : ready ? words.startMany.replace("#", ready) : words.start;
}

function show(entry, state, { text, tone = "", reason = "", share = null } = {}) {
  entry.state = state;
  const badge = entry.row.querySelector("[data-state]");
  const bar = entry.row.querySelector("progress");
  const why = entry.row.querySelector("[data-reason]");
  badge.textContent = text;
  badge.className = `badge ${tone}`;
  bar.hidden = share === null;
  if (share !== null) bar.value = share;
  why.textContent = reason;
  why.hidden = !reason;
  entry.row.querySelector("[data-upload-retry]").hidden = state !== "failed";
  tell();
}

const fail = (entry, reason) => show(entry, "failed", { text: words.failed, tone: "bad", reason });

function refusal(file) {
  if (file.size > Number(words.maxBytes)) return words.tooLarge;
  if (file.size === 0) return words.empty;
  const dot = file.name.lastIndexOf(".");
  return dot > 0 && !endings.has(file.name.slice(dot).toLowerCase()) ? words.wrongKind : "";
}

function add(file, path) {
  const row = panel.querySelector("[data-upload-template]").content.firstElementChild.cloneNode(true);
  const entry = { file, path, row, state: "ready", request: null };
  row.querySelector(".upload-name").textContent = path;
  row.querySelector("progress").setAttribute("aria-label", path);
  row.querySelector("[data-upload-retry]").addEventListener("click", () => { queue(entry); pump(); });
  row.querySelector("[data-upload-remove]").addEventListener("click", () => remove(entry));
  entries.add(entry);
  list.prepend(row);
  panel.querySelector("[data-uploads-title]").hidden = false;
  const reason = refusal(file);
  if (reason) fail(entry, reason);
  else show(entry, "ready", { text: words.ready });
}

function addAll(found) {
  const taken = found.slice(0, Math.max(0, MOST - entries.size));
  complain(taken.length < found.length ? words.tooMany.replace("#", MOST) : "");
  // The first of them stands at the top.
  for (const { file, path } of [...taken].reverse()) add(file, path);
  if (found.length) open();
}

function remove(entry) {
  entry.request?.abort();
  entries.delete(entry);
  entry.row.remove();
  tell();
  pump();
}

function queue(entry) {
  show(entry, "queued", { text: words.queued, tone: "busy", share: 0 });
}

function pump() {
  for (const entry of inState("queued").slice(0, AT_ONCE - inState("sending").length)) send(entry);
}

function send(entry) {
  const body = new FormData(form);
  body.delete("file");
  body.set("path", entry.path);
  body.set("file", entry.file);
  const request = new XMLHttpRequest();
  entry.request = request;
  show(entry, "sending", { text: words.sending, tone: "busy", share: 0 });
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("X-CSRFToken", csrfToken());
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) entry.row.querySelector("progress").value = (100 * event.loaded) / event.total;
  });
  request.addEventListener("load", () => arrive(entry, request));
  // The file itself may have gone meanwhile: the browser then says no more than that it failed.
  request.addEventListener("error", () => entry.file.slice(0, 1).arrayBuffer().then(
    () => settle(entry, words.offline),
    () => settle(entry, words.unreadable),
  ));
  request.send(body);
}

function settle(entry, reason) {
  entry.request = null;
  fail(entry, reason);
  pump();
}

function arrive(entry, request) {
  let answer = null;
  try { answer = JSON.parse(request.responseText); } catch { /* a page: of the sign-in, or of a proxy */ }
  if (request.status !== 201 || !answer) {
    const told = answer && ((answer.errors || []).map((one) => one.detail).join(" ") || answer.detail);
    const lost = request.responseURL.includes("/sign-in/") || request.status === 401;
    settle(entry, told || (lost ? words.signedOut : words.broken));
    return;
  }
  entries.delete(entry);
  const box = document.createElement("template");
  box.innerHTML = answer.row;
  const row = box.content.firstElementChild;
  entry.row.replaceWith(row);
  window.htmx?.process(row);
  document.body.dispatchEvent(new CustomEvent("uploaded"));
  if (!inState("queued", "sending").length) document.body.dispatchEvent(new CustomEvent("documents-changed"));
  tell();
  pump();
}

// Folders that are dropped are read entry by entry; a folder that is chosen comes as a list.

const fileOf = (item) => new Promise((resolve) => item.file(resolve, () => resolve(null)));

async function read(item, into) {
  if (into.length > MOST || item.name.startsWith(".")) return;
  if (item.isFile) {
    const file = await fileOf(item);
    if (file) into.push({ file, path: item.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = item.createReader();
  for (;;) {
    const batch = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!batch.length) return;
    for (const inner of batch.sort((a, b) => a.name.localeCompare(b.name))) await read(inner, into);
  }
}

async function take(transfer) {
  // The list of items is gone after the first await.
  const items = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  const found = [];
  for (const item of items) await read(item, found);
  addAll(items.length ? found : files.map((file) => ({ file, path: file.name })));
}

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0;

document.addEventListener("dragenter", (event) => {
  if (!holdsFiles(event)) return;
  depth += 1;
  open();
  drop.classList.add("is-over");
});
document.addEventListener("dragleave", (event) => {
  if (!holdsFiles(event)) return;
  depth -= 1;
  if (depth <= 0) drop.classList.remove("is-over");
});
document.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  depth = 0;
  drop.classList.remove("is-over");
  take(event.dataTransfer);
});

for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    const found = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
    addAll(found.filter(({ path }) => !path.split("/").some((part) => part.startsWith("."))));
    input.value = "";
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const ready = inState("ready");
  complain(ready.length ? "" : words.nothing);
  ready.sort((a, b) => (a.row.compareDocumentPosition(b.row) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1)).forEach(queue);
  pump();
});

// Rows that the server tells of take the place of those that are shown.
document.addEventListener("htmx:afterSwap", () => {
  for (const row of panel.querySelectorAll("[data-upload-news] > [data-job]")) {
    const shown = list.querySelector(`[data-job="${row.dataset.job}"]`);
    const focused = shown?.contains(document.activeElement) ? document.activeElement.id : "";
    if (shown) shown.replaceWith(row);
    if (focused) document.getElementById(focused)?.focus();
  }
  panel.querySelector("[data-upload-news]")?.remove();
});

addEventListener("beforeunload", (event) => { if (inState("queued", "sending").length) event.preventDefault(); });

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-upload-open]")) {
    event.preventDefault();
    open();
    form.querySelector("#file").focus();
  } else if (event.target.closest("[data-upload-close]")) {
    panel.hidden = true;
    document.querySelector("[data-upload-open]")?.focus();
  }
});

form.classList.add("has-script");
form.querySelector("#file").required = false;
form.querySelector("[data-drop-words]").hidden = false;
panel.querySelector("[data-upload-close]").hidden = false;
const folder = form.querySelector("[data-folder]");
folder.hidden = !("webkitdirectory" in folder.querySelector("input")) || matchMedia("(pointer: coarse)").matches;
tell();
