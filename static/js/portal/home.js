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

// A search field once there are many tiles: it shows those whose name or description holds what was typed.
const MANY = 8;
const search = document.getElementById("search");
const typed = document.getElementById("search-text");
const none = document.getElementById("search-none");

function narrow() {
  const tiles = [...mine.querySelectorAll("[data-name]")];
  search.hidden = tiles.length <= MANY && !typed.value;
  const wanted = typed.value.trim().toLocaleLowerCase();
  let shownTiles = 0;
  for (const tile of tiles) {
    const fits = tile.dataset.name.toLocaleLowerCase().includes(wanted);
    tile.closest("li").hidden = !fits;
    shownTiles += fits;
  }
  for (const section of mine.querySelectorAll("section")) section.hidden = !section.querySelector("li:not([hidden])");
  none.textContent = shownTiles ? "" : none.dataset.none;
}
typed.addEventListener("input", narrow);
search.addEventListener("submit", (event) => event.preventDefault());
document.body.addEventListener("htmx:afterSwap", (event) => event.detail.target === mine && narrow());
narrow();
