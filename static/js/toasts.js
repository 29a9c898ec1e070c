// Short messages in the corner. The server sends them as the event `toast` ({text, tone}) in HX-Trigger.
const ICONS = { good: "check", busy: "info", off: "info", attention: "warning", bad: "cross" };
const STAYS_MS = 7000;

function picture(name, classes) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", classes);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `/static/img/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

function leaveLater(box) {
  // What went wrong stays until it is closed; good news may go by itself.
  if (box.classList.contains("tone-bad") || box.classList.contains("tone-attention")) return;
  setTimeout(() => box.matches(":hover, :focus-within") ? leaveLater(box) : box.remove(), STAYS_MS);
}

const isShown = (text) => [...document.querySelectorAll("#toasts .toast p")].some((words) => words.textContent === text);

/** Shows `text` (plain, never markup) in the tone good, busy, attention or bad; what is shown already is not repeated. */
export function toast(text, tone = "busy") {
  if (isShown(text)) return;
  const box = document.createElement("div");
  box.className = `toast tone-${tone}`;
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "button button--quiet button--small button--icon";
  close.dataset.closeToast = "";
  close.setAttribute("aria-label", "Close this message");
  close.append(picture("close", "icon icon--small"));
  box.append(picture(ICONS[tone] ?? "info", "icon"), words, close);
  document.getElementById("toasts")?.append(box);
  leaveLater(box);
}

export function startToasts() {
  document.querySelectorAll("#toasts .toast").forEach(leaveLater);
  document.addEventListener("click", (event) => event.target.closest("[data-close-toast]")?.closest(".toast").remove());
  document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.tone));
}
