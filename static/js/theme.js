// Light, dark or as the system has it. Loaded before the page is painted, so that nothing flashes.
(() => {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("theme") || ""; } catch { return ""; } };
  const apply = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    const part = document.querySelector("[data-theme-choice]");
    if (!part) return;
    const select = part.querySelector("select");
    part.hidden = false;
    select.value = read();
    select.addEventListener("change", () => {
      try { localStorage.setItem("theme", select.value); } catch { /* private windows forget it */ }
      apply(select.value);
    });
  });
})();
