// My desktops: keeps the tiles still while somebody uses them, and leaves them alone when nothing changed.
const mine = document.getElementById("mine");
let shown = "";
let isDue = false;

/** The fragment without what differs in every answer. */
const settled = (html) => html.replace(/name="csrfmiddlewaretoken" value="[^"]*"/g, "");
/** A menu is open, or a button in here was pressed and its answer is on its way: what it says must find its place. */
const isInUse = () => mine.querySelector("details[open], .htmx-request");

document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target !== mine || event.detail.xhr.status !== 200) return;
  const html = settled(event.detail.xhr.responseText);
  if (isInUse()) {
    isDue = true;
    event.detail.shouldSwap = false;
  } else if (html === shown) {
    event.detail.shouldSwap = false;
  } else shown = html;
});

// Asked again once nobody is at it any more. A moment later: closing a menu may be the press of a button in it.
function catchUp() {
  setTimeout(() => {
    if (!isDue || isInUse()) return;
    isDue = false;
    document.body.dispatchEvent(new CustomEvent("desktops-changed"));
  });
}
mine.addEventListener("toggle", catchUp, true);
document.body.addEventListener("htmx:afterRequest", (event) => event.detail.elt !== mine && catchUp());
