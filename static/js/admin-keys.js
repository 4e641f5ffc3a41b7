// One key presses the button or follows the link that names it in data-key; never while typing.
const typing = (target) => target.isContentEditable || target.matches?.("input, textarea, select");

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) return;
  const named = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!named) return;
  event.preventDefault();
  named.click();
});
