// What is shown once (`data-secret`): a button copies the code beside it (`data-copy-secret` says what it is called then),
// and all of it leaves the page when the page is left, so that “back” finds nothing.

async function copy(code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent);
  getSelection().selectAllChildren(code); // browsers without TLS have no navigator.clipboard
  document.execCommand("copy");
}

for (const button of document.querySelectorAll("[data-copy-secret]")) {
  button.hidden = false;
  const words = button.textContent;
  button.addEventListener("click", async () => {
    await copy(button.parentElement.querySelector("code"));
    button.textContent = button.dataset.copySecret;
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}
addEventListener("pagehide", () => document.querySelectorAll("[data-secret]").forEach((part) => part.remove()));
