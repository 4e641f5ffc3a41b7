// Keys, for those who leave the mouse alone. Single ones work outside of fields only, and can be switched off.

import { keeper } from "./keep.js";

const help = document.querySelector("[data-keys]");
const off = keeper("keys-off", { local: true });
const choice = help.querySelector("[data-keys-on]");
const question = document.querySelector("#question");

const first = (selector) => document.querySelector(selector)?.focus();
const SINGLE = {
  "/": () => (question || document.querySelector("[type=search]"))?.focus(),
  "?": () => help.showModal(),
  n: () => { location.href = document.querySelector(".brand").href; },
  h: () => first("#side-list a, #history-rows a"),
  s: () => [...document.querySelectorAll(".sources ol")].at(-1)?.querySelector("a")?.focus(),
};

function isField(target) {
  return Boolean(target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]"));
}

/** ↑ and ↓ between the links of a list. */
function move(event) {
  const list = event.target.closest?.("[data-arrows]");
  if (!list || isField(event.target)) return;
  const links = [...list.querySelectorAll("li > a:first-child")];
  const now = links.indexOf(event.target.closest("li")?.querySelector("a:first-child"));
  const next = links[now + (event.key === "ArrowDown" ? 1 : -1)];
  if (now < 0 || !next) return;
  event.preventDefault();
  next.focus();
}

function closeOpen(event) {
  const open = event.target.closest?.("details[open]") || document.querySelector("details.menu[open], details.filters[open]");
  if (!open || event.defaultPrevented) return;
  event.preventDefault();
  open.open = false;
  open.querySelector("summary").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches?.("textarea:not(#question)")) {
    event.preventDefault();
    event.target.form?.requestSubmit();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") closeOpen(event);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event);
  if (off.get() || isField(event.target) || !Object.hasOwn(SINGLE, event.key)) return;
  event.preventDefault();
  SINGLE[event.key]();
}, true);

for (const button of document.querySelectorAll("[data-keys-open]")) {
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
}
choice.checked = !off.get();
choice.addEventListener("change", () => off.set(!choice.checked));
