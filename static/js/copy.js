// Copies: a block of code, or an answer with its sources as the server writes them out.

const words = document.querySelector("[data-copy-words]").dataset;
const status = document.querySelector("[data-status]");

/** Also where the site is not served over TLS, where browsers have no `navigator.clipboard`. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(await text);
  const box = document.createElement("textarea");
  box.value = await text;
  box.className = "visually-hidden";
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  if (!done) throw new Error("not copied");
}

async function copyFor(button, text) {
  const before = button.textContent;
  try {
    await copy(text);
    button.textContent = words.copied;
    status.textContent = status.dataset.copied;
  } catch {
    button.textContent = words.failed;
  }
  setTimeout(() => { button.textContent = before; }, 2000);
}

function addButtons(root) {
  for (const block of root.querySelectorAll(".prose pre")) {
    if (block.parentElement.matches(".code")) continue;
    const frame = document.createElement("div"), button = document.createElement("button");
    frame.className = "code";
    button.type = "button";
    button.className = "small-button";
    button.textContent = words.copy;
    button.dataset.copyCode = "";
    block.tabIndex = 0; // it scrolls sideways: by keys too
    block.replaceWith(frame);
    frame.append(block, button);
  }
}

async function read(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  if (!response.ok || response.redirected) throw new Error(String(response.status));
  return response.text();
}

document.addEventListener("click", (event) => {
  const code = event.target.closest("[data-copy-code]"), answer = event.target.closest("[data-copy-answer]");
  if (code) copyFor(code, code.parentElement.querySelector("pre").textContent);
  if (!answer || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  copyFor(answer, read(answer.href));
});
document.addEventListener("ragsite:answer", (event) => addButtons(event.target));
addButtons(document);
