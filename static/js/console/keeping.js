// A live part is replaced as a whole. What the person had chosen or opened in it is put back, and so is the focus.
const kept = new WeakMap();
const STOPS = "a[href], button, input, select, textarea, summary";

/** What a stop is known by: the new one is another element. */
const known = (stop) => [stop.tagName, stop.getAttribute("href"), stop.name, stop.value, stop.textContent.trim()].join("|");
const stopsLike = (region, name) => [...region.querySelectorAll(STOPS)].filter((stop) => known(stop) === name);

function placeOf(region) {
  const stop = document.activeElement;
  if (!region.contains(stop) || !stop.matches(STOPS)) return null;
  const name = known(stop);
  return { name, number: stopsLike(region, name).indexOf(stop) };
}

function remember(region) {
  const checked = region.matches("[data-keep-checked]")
    ? [...region.querySelectorAll("input:checked[name]")].map((box) => `${box.name}=${box.value}`)
    : [];
  const opened = [...region.querySelectorAll("details[id]")].map((box) => [box.id, box.open]);
  kept.set(region, { checked: new Set(checked), opened: new Map(opened), place: placeOf(region) });
}

function putBack(region) {
  const { checked, opened, place } = kept.get(region) ?? {};
  if (!checked) return;
  region.querySelectorAll("input[name]").forEach((box) => {
    if (checked.has(`${box.name}=${box.value}`) && !box.disabled) box.checked = true;
  });
  region.querySelectorAll("details[id]").forEach((box) => {
    if (opened.has(box.id)) box.open = opened.get(box.id);
  });
  if (place) stopsLike(region, place.name)[place.number]?.focus({ preventScroll: true });
  region.dispatchEvent(new Event("change", { bubbles: true }));
}

export function startKeeping() {
  document.addEventListener("htmx:beforeSwap", (event) => event.detail.target.id === "live" && remember(event.detail.target));
  document.addEventListener("htmx:afterSwap", (event) => event.detail.target.id === "live" && putBack(event.detail.target));
}
