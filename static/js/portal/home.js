// My desktops: keeps the tiles still while somebody uses them, and leaves them alone when nothing changed.
const mine = document.getElementById("mine");
let shown = "";
let isDue = false;

/** The fragment without what differs in every answer. */
const settled = (html) => html.replace(/name="csrfmiddlewaretoken" value="[^"]*"/g, "");
const openMenu = () => mine.querySelector("details[open]");

document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target !== mine || event.detail.xhr.status !== 200) return;
  const html = settled(event.detail.xhr.responseText);
  if (openMenu()) {
    isDue = true;
    event.detail.shouldSwap = false;
  } else if (html === shown) {
    event.detail.shouldSwap = false;
  } else shown = html;
});

mine.addEventListener(
  "toggle",
  () => {
    if (!isDue || openMenu()) return;
    isDue = false;
    document.body.dispatchEvent(new CustomEvent("desktops-changed"));
  },
  true,
);
