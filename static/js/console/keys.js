// Single keys, for those who like them: they can be switched off on the sheet that "?" shows, and the browser remembers.
const STORED = "deskyard-keys";
const CHORD_MS = 1500;

function isTyping(target) {
  return target.closest("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable], dialog[open]");
}

function isOn() {
  return localStorage.getItem(STORED) !== "off";
}

export function startKeys() {
  const sheet = document.getElementById("keys");
  if (!sheet) return;
  const box = sheet.querySelector("[data-keys-on]");
  let chord = 0;
  box.checked = isOn();
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-open-keys]")) sheet.showModal();
    if (event.target.closest("[data-close-keys]") || event.target === sheet) sheet.close();
  });

  const acts = {
    "?": () => sheet.showModal(),
    "/": () => document.querySelector("[role=search] [name=q]")?.focus(),
    t: () => {
      // Focus comes back to the button when the drawer closes.
      const button = document.getElementById("tasks-button");
      button?.focus();
      button?.click();
    },
    n: () => document.querySelector("a[rel=next]")?.click(),
    p: () => document.querySelector("a[rel=prev]")?.click(),
    g: () => (chord = Date.now()),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!isOn() || isTyping(event.target)) return;
    const isChord = Date.now() - chord < CHORD_MS;
    chord = 0;
    const room = isChord && document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    const act = room ? () => room.click() : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
