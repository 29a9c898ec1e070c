// What every page needs: toasts, the dialog, menus that close, the theme. Everything works without it, only less smoothly.
import { toast, startToasts } from "./toasts.js";
import { startDialog } from "./dialog.js";
import { startTheme } from "./theme.js";
import { startCopying } from "./copying.js";
import { startAges } from "./ages.js";
import { startConnection } from "./connection.js";
import { startHearing } from "./heard.js";

startToasts();
startDialog();
startTheme();
startCopying();
startAges();
startConnection();
startHearing();

// A menu is a <details>: it closes on Escape, on a click elsewhere, and once something in it was chosen.
document.addEventListener("click", (event) => {
  document.querySelectorAll("details.menu[open]").forEach((menu) => {
    if (!menu.contains(event.target) || event.target.closest(".menu__box a, .menu__box button")) menu.open = false;
  });
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  document.querySelectorAll("details.menu[open]").forEach((menu) => {
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
});

// A form that changes the list as one types or chooses says so by data-instant; its button is only for those without JS.
document.querySelectorAll("form[data-instant] [type=submit]").forEach((button) => (button.hidden = true));

document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status === 401 || status === 403) return toast("You are signed out, or may not do this. Load the page anew.", "bad");
  if (status === 404) return toast("That is no longer there.", "attention");
  // Of a proxy: the server does not answer, which connection.js says.
  if (status === 502 || status === 504) return;
  toast(`The server could not answer (${status}). Try again; if it stays so, look at its log.`, "bad");
});
