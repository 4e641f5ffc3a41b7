// A dialog for what htmx fetches into it: opened when something came, closed when there is nothing more to do.

const dialog = document.querySelector("[data-panel]");
const body = document.querySelector("#panel-body");

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target === body && body.childElementCount && !dialog.open) dialog.showModal();
});
document.addEventListener("close-panel", () => dialog.close());
dialog.addEventListener("close", () => body.replaceChildren());
for (const one of document.querySelectorAll("dialog")) {
  one.addEventListener("click", (event) => { if (event.target === one) one.close(); }); // beside it
}
