// On a phone the matrix shows one role at a time: choosing another keeps what is ticked and not saved.

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-choose]");
  if (!link) return;
  event.preventDefault();
  const matrix = link.closest("[data-matrix]");
  for (const one of matrix.querySelectorAll("[data-choose]")) one.toggleAttribute("aria-current", one === link);
  link.setAttribute("aria-current", "true");
  for (const cell of matrix.querySelectorAll("[data-role]")) cell.classList.toggle("is-chosen", cell.dataset.role === link.dataset.choose);
});
