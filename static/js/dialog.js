// One dialog a page. A link with data-dialog loads its target into it by htmx; without JS the link opens a page of its own.
export function startDialog() {
  const dialog = document.getElementById("dialog");
  if (!dialog) return;
  const said = ["lost", "toasts"].map((id) => document.getElementById(id));
  let opener = null;

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.closest("[data-dialog]")) opener = event.detail.elt;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-content" && !dialog.open) {
      dialog.showModal();
      // What is said meanwhile is said in front of it.
      dialog.append(...said);
      dialog.querySelector("[autofocus], input:not([type=hidden]), textarea, select, .dialog__acts a")?.focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!dialog.open) return;
    if (event.target.closest("[data-close-dialog]") && dialog.contains(event.target)) {
      event.preventDefault();
      dialog.close();
    } else if (event.target === dialog) dialog.close();
  });
  document.addEventListener("close-dialog", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.before(...said);
    document.getElementById("dialog-content").replaceChildren();
    // A live part may have been made anew meanwhile, with the opener in it.
    const there = opener?.isConnected ? opener : opener?.id && document.getElementById(opener.id);
    (there || document.getElementById("main"))?.focus();
  });
}
