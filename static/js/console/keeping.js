// A live part is replaced as a whole. What the person had chosen or opened in it is put back.
const kept = new WeakMap();

function remember(region) {
  const checked = region.matches("[data-keep-checked]")
    ? [...region.querySelectorAll("input:checked[name]")].map((box) => `${box.name}=${box.value}`)
    : [];
  const opened = [...region.querySelectorAll("details[id]")].map((box) => [box.id, box.open]);
  const summary = document.activeElement?.matches("summary") ? document.activeElement.closest("details")?.id : "";
  kept.set(region, { checked: new Set(checked), opened: new Map(opened), summary });
}

function putBack(region) {
  const { checked, opened, summary } = kept.get(region) ?? {};
  if (!checked) return;
  region.querySelectorAll("input[name]").forEach((box) => {
    if (checked.has(`${box.name}=${box.value}`) && !box.disabled) box.checked = true;
  });
  region.querySelectorAll("details[id]").forEach((box) => {
    if (opened.has(box.id)) box.open = opened.get(box.id);
  });
  if (summary) region.querySelector(`#${CSS.escape(summary)} > summary`)?.focus({ preventScroll: true });
  region.dispatchEvent(new Event("change", { bubbles: true }));
}

export function startKeeping() {
  document.addEventListener("htmx:beforeSwap", (event) => event.detail.target.id === "live" && remember(event.detail.target));
  document.addEventListener("htmx:afterSwap", (event) => event.detail.target.id === "live" && putBack(event.detail.target));
}
