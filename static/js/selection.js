// Ticking rows of a table: all at once, a range with Shift; the bar says how many and shows only while there are any.

let last = null;

const ticks = (table) => [...table.querySelectorAll("[data-pick]")];

function tell() {
  const table = document.querySelector("[data-pick-table]");
  const bar = document.querySelector("[data-bulk]");
  if (!table || !bar) return;
  const all = ticks(table);
  const on = all.filter((tick) => tick.checked);
  const count = bar.querySelector("[data-bulk-count]");
  bar.hidden = on.length === 0;
  count.textContent = count.dataset.words.replace("#", on.length);
  for (const tick of all) tick.closest("tr").classList.toggle("is-picked", tick.checked);
  const head = table.querySelector("[data-pick-all]");
  head.hidden = false;
  const box = head.querySelector("input");
  box.checked = on.length > 0 && on.length === all.length;
  box.indeterminate = on.length > 0 && on.length < all.length;
}

document.addEventListener("change", (event) => {
  const head = event.target.closest("[data-pick-all]");
  if (head) for (const tick of ticks(head.closest("table"))) tick.checked = event.target.checked;
  if (head || event.target.matches("[data-pick]")) tell();
});

document.addEventListener("click", (event) => {
  if (!event.target.matches("[data-pick]")) return;
  const all = ticks(event.target.closest("table"));
  const [from, to] = [all.indexOf(last), all.indexOf(event.target)].sort((a, b) => a - b);
  if (event.shiftKey && from >= 0) for (const tick of all.slice(from, to + 1)) tick.checked = event.target.checked;
  last = event.target;
  tell();
});

document.addEventListener("keydown", (event) => {
  const open = document.querySelector("[data-bulk] details[open]");
  if (event.key !== "Escape" || !open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

// Only one of the bar's boxes is open at a time.
document.addEventListener("toggle", (event) => {
  if (!event.target.matches("[data-bulk] details") || !event.target.open) return;
  for (const other of document.querySelectorAll("[data-bulk] details[open]")) if (other !== event.target) other.open = false;
}, true);

// A list that renews itself must not take the ticks away.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-refresh]") && document.querySelector("[data-pick]:checked")) event.preventDefault();
});

// Undoing from a message, without leaving the list.
document.addEventListener("submit", (event) => {
  const form = event.target;
  const path = form.getAttribute("action") || "";
  if (!form.closest("#messages") || !path.startsWith("/documents/restore/") || !window.htmx) return;
  event.preventDefault();
  const narrowed = new URLSearchParams(location.search);
  narrowed.delete("cursor");
  const joined = narrowed.size ? `${path}&${narrowed}` : path;
  const list = document.querySelector("#list");
  const values = Object.fromEntries(new FormData(form));
  form.closest("[data-message]").remove();
  window.htmx.ajax("POST", joined, { target: list, source: list, values });
});

document.addEventListener("htmx:afterSettle", tell);
tell();
