// A filter form takes effect as one chooses; its state is the address, so a link to it or "back" shows the same.
export function startFilters() {
  document.querySelectorAll("form[data-instant]").forEach((form) => {
    form.addEventListener("change", (event) => {
      if (event.target.matches("select")) form.requestSubmit();
    });
    form.addEventListener("submit", () => {
      // Empty fields would only lengthen the address.
      form.querySelectorAll("input[name], select[name]").forEach((field) => (field.disabled = !field.value));
      setTimeout(() => form.querySelectorAll(":disabled").forEach((field) => (field.disabled = false)));
    });
  });
}
