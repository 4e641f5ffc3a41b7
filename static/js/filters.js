// Says how many filters are on while their list is closed.

const filters = document.querySelector("[data-filters]");
if (filters) {
  const count = () => {
    const on = filters.querySelectorAll("input:checked").length;
    filters.querySelector("[data-filters-count]").textContent = on || "";
  };
  filters.addEventListener("change", count);
  count();
}
