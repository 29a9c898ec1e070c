// The box in a table's head chooses all rows of the page, the one above it those of every page; the bar below says how
// many are chosen.
function show(form) {
  const boxes = [...form.querySelectorAll("tbody input[type=checkbox]")];
  const everywhere = form.querySelector("[data-choose-all]:checked");
  [...boxes, form.querySelector("[data-check-all]")].forEach((box) => box && (box.disabled = Boolean(everywhere)));
  const chosen = boxes.filter((box) => box.checked).length;
  const count = everywhere ? everywhere.dataset.chooseAll : chosen;
  form.querySelectorAll("[data-chosen-count]").forEach((place) => (place.textContent = count));
  const all = form.querySelector("[data-check-all]");
  if (!all) return;
  all.checked = chosen > 0 && chosen === boxes.length;
  all.indeterminate = chosen > 0 && chosen < boxes.length;
}

export function startChoosing() {
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form");
    if (!form?.querySelector("[data-chosen-count]")) return;
    if (event.target.matches("[data-check-all]")) {
      form.querySelectorAll("tbody input[type=checkbox]").forEach((box) => (box.checked = event.target.checked));
    }
    show(form);
  });
  // What was done concerns the rows no longer.
  document.addEventListener("close-dialog", () => {
    document.querySelectorAll("form :is([name=desktop], [data-choose-all]):checked").forEach((box) => {
      box.checked = false;
      show(box.form);
    });
  });
}
