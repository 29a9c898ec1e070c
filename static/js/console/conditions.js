// A field with data-when="other=value value" is asked only while the other field has one of those values.
// One with an error stays in sight, whatever the other says.
function show(form) {
  form.querySelectorAll("[data-when]").forEach((place) => {
    const [name, values] = place.dataset.when.split("=");
    const other = form.elements.namedItem(name);
    place.hidden = Boolean(other) && !values.split(" ").includes(other.value) && !place.querySelector("[aria-invalid]");
  });
}

export function startConditions() {
  document.querySelectorAll("form:has([data-when])").forEach((form) => {
    form.addEventListener("change", () => show(form));
    show(form);
  });
}
