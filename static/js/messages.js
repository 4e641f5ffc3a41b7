// Messages: can be dismissed, also those that htmx brings; says when the server was not reached.

const box = document.querySelector("#messages");
const reveal = () => box.querySelectorAll("[data-dismiss]").forEach((button) => { button.hidden = false; });

export function say(text, level = "error") {
  // A list that asks every two seconds says once that nobody answers.
  if ([...box.querySelectorAll("[data-message] > span")].some((one) => one.textContent === text)) return;
  const message = document.createElement("div");
  message.className = `message ${level}`;
  message.dataset.message = "";
  const words = document.createElement("span");
  words.textContent = text;
  message.append(words);
  box.append(message);
}

box.addEventListener("click", (event) => {
  if (event.target.closest("[data-dismiss]")) event.target.closest("[data-message]").remove();
});
new MutationObserver(reveal).observe(box, { childList: true });
reveal();
document.addEventListener("htmx:sendError", () => say(box.dataset.offline));
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status >= 500) say(box.dataset.broken);
});
