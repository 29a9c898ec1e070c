// Buttons with data-copy put that text on the clipboard and say so.
import { toast } from "./toasts.js";

export function startCopying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      toast("Copied.", "good");
    } catch {
      toast("The browser does not allow copying here. Select the text and copy it by hand.", "attention");
    }
  });
}
