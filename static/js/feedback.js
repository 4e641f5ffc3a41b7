// Whether an answer helped. Shown only where it works: here.

import { csrfToken } from "./stream.js";

const given = new WeakMap();
const reveal = (root) => root.querySelectorAll("[data-feedback]").forEach((part) => { part.hidden = false; });

async function send(part, helpful) {
  const answer = part.closest("[data-answer]").dataset.answer;
  const known = given.get(part);
  const response = await fetch(known ? `${part.dataset.feedback}/${known}` : part.dataset.feedback, {
    method: known ? "PATCH" : "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": csrfToken() },
    body: JSON.stringify(known ? { helpful } : { request_id: answer, helpful }),
    credentials: "same-origin",
  });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail);
  given.set(part, body.id);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-helpful]");
  if (!button) return;
  const part = button.closest("[data-feedback]");
  const status = part.querySelector("[role=status]");
  const buttons = part.querySelectorAll("button");
  buttons.forEach((one) => { one.disabled = true; });
  try {
    await send(part, button.dataset.helpful === "true");
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    status.textContent = part.dataset.thanks;
  } catch (error) {
    status.textContent = error.message || part.dataset.failed;
  } finally {
    buttons.forEach((one) => { one.disabled = false; });
  }
});
document.addEventListener("ragsite:answer", (event) => reveal(event.target));
reveal(document);
