// The filters stay as they were left, in this browser, for this member; that some are on is said beside the box.

import { keeper } from "./keep.js";

const filters = document.querySelector("[data-filters]");
const kept = keeper("filters", { local: true });

if (filters) {
  const boxes = [...filters.querySelectorAll("input[type=checkbox]")];
  const line = document.querySelector("[data-filters-on]");
  const show = () => {
    const on = boxes.filter((one) => one.checked);
    filters.querySelector("[data-filters-count]").textContent = on.length || "";
    line.querySelector("[data-filters-names]").textContent = on.map((one) => one.parentElement.textContent.trim()).join(", ");
    line.hidden = !on.length;
  };
  const keep = () => {
    const on = boxes.filter((one) => one.checked).map((one) => `${one.name}:${one.value}`);
    kept.set(on.length ? on : null);
    show();
  };
  if (!boxes.some((one) => one.checked)) {
    const before = new Set(kept.get() || []);
    for (const one of boxes) one.checked = before.has(`${one.name}:${one.value}`);
  }
  filters.addEventListener("change", keep);
  line.querySelector("[data-filters-clear]").addEventListener("click", () => {
    for (const one of boxes) one.checked = false;
    keep();
    document.querySelector("#question").focus();
  });
  show();
}
