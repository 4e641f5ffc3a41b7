// Filling in a detail of a schedule chooses it.

const part = document.querySelector("[data-schedule]");

part?.addEventListener("input", (event) => {
  const radio = event.target.closest(".choice")?.querySelector("[type=radio]");
  if (radio && radio !== event.target) radio.checked = true;
}, true);
