// Pointing at a citation shows its passage and lights its source; a click follows the link to the document.

const preview = document.createElement("div");
preview.className = "preview";
preview.hidden = true;
preview.id = "citation-preview";
preview.setAttribute("role", "tooltip");
document.body.append(preview);
let lit = [];

function hide() {
  preview.hidden = true;
  lit.forEach((part) => part.classList.remove("is-lit"));
  lit.filter((part) => part.matches(".cite")).forEach((part) => part.removeAttribute("aria-describedby"));
  lit = [];
}

function show(link) {
  const card = link.closest(".answer")?.querySelector(`[data-source="${Number(link.dataset.cite)}"]`);
  if (!card) return;
  hide();
  const title = document.createElement("strong");
  title.textContent = card.querySelector(".source-title").textContent;
  const place = document.createElement("span");
  place.className = "quiet";
  place.textContent = ["path", "place"].map((part) => card.querySelector(`.source-${part}`)?.textContent).filter(Boolean).join(" › ");
  const text = document.createElement("p");
  text.textContent = card.querySelector(".source-text").textContent;
  preview.replaceChildren(title, place, text);
  preview.hidden = false;
  const at = link.getBoundingClientRect();
  const left = Math.min(at.left, document.documentElement.clientWidth - preview.offsetWidth - 16);
  const below = at.bottom + 6;
  const above = at.top - preview.offsetHeight - 6;
  preview.style.left = `${Math.max(16, left) + scrollX}px`;
  preview.style.top = `${(below + preview.offsetHeight > innerHeight && above > 56 ? above : below) + scrollY}px`;
  link.setAttribute("aria-describedby", preview.id);
  lit = [link, card];
  lit.forEach((part) => part.classList.add("is-lit"));
}

const cited = (event) => event.target.closest?.(".cite");
document.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "mouse") return;
  const link = cited(event);
  if (link) show(link);
  else if (!preview.hidden && !preview.contains(event.target) && document.activeElement !== lit[0]) hide();
});
document.addEventListener("focusin", (event) => { const link = cited(event); if (link) show(link); else hide(); });
document.addEventListener("focusout", (event) => { if (cited(event)) hide(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || preview.hidden) return;
  hide();
  event.preventDefault(); // nothing else is to be closed or stopped by it
}, true);
document.addEventListener("ragsite:answer", hide);
