// The drawer of tasks asks what is being done when it opens, and again whenever the header hears that something changed.
export function startTasks() {
  const drawer = document.getElementById("tasks");
  const content = document.getElementById("tasks-content");
  if (!drawer) return;
  const ask = () => htmx.trigger(content, "refresh");
  drawer.addEventListener("toggle", (event) => {
    if (event.newState === "open") {
      ask();
      // Its button is made anew while it is open: Tab would not lead into the drawer, nor Escape back to the button.
      drawer.querySelector("button")?.focus();
    } else if (document.activeElement === document.body || drawer.contains(document.activeElement)) {
      document.getElementById("tasks-button")?.focus();
    }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target?.id === "pulse" && drawer.matches(":popover-open")) ask();
  });
}
