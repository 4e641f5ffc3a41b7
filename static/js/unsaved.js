// A form (`data-unsaved`) whose Save shows only while something differs from what was saved, with what differs beside it.
//
// `data-unsaved-save` is the part to show, `data-unsaved-list` where the changes are told: a checkbox that is labelled
// “whose: what” says what with a plus or a minus, under whose it is.

const differs = (field) => {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.tagName === "SELECT") return [...field.options].some((one) => one.selected !== one.defaultSelected);
  return field.value !== field.defaultValue;
};

function update(form) {
  const changed = [...form.elements].filter((field) => field.name && !["hidden", "submit"].includes(field.type) && differs(field));
  const save = form.querySelector("[data-unsaved-save]");
  if (save) save.hidden = !changed.length;
  const list = form.querySelector("[data-unsaved-list]");
  if (!list) return;
  const of = new Map();
  for (const field of changed) {
    const [, name, what] = field.ariaLabel?.match(/^(.*): (.*)$/) ?? [];
    if (what) of.set(name, [...(of.get(name) ?? []), `${field.checked ? "+" : "−"}${what}`]);
  }
  list.textContent = [...of].map(([name, what]) => `${name}: ${what.join(", ")}`).join(" · ");
}

const forms = () => document.querySelectorAll("form[data-unsaved]");
document.addEventListener("input", ({ target }) => target.form?.matches("[data-unsaved]") && update(target.form));
document.addEventListener("reset", ({ target }) => target.matches("[data-unsaved]") && setTimeout(() => update(target)));
document.addEventListener("htmx:afterSettle", () => forms().forEach(update));
addEventListener("pageshow", () => forms().forEach(update));
addEventListener("beforeunload", (event) => {
  if ([...document.querySelectorAll("form[data-unsaved-guard]")].some((form) => !form.dataset.sent && !form.querySelector("[data-unsaved-save]").hidden)) event.preventDefault();
});
document.addEventListener("submit", ({ target }) => { target.dataset.sent = "1"; });
forms().forEach(update);
