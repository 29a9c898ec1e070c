// The drawer of tasks asks what is being done when it opens, and again whenever the header hears that something changed.
export function startTasks() {
  const drawer = document.getElementById("tasks");
  const content = document.getElementById("tasks-content");
  if (!drawer) return;
  const ask = () => htmx.trigger(content, "refresh");
  drawer.addEventListener("toggle", (event) => event.newState === "open" && ask());
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target?.id === "pulse" && drawer.matches(":popover-open")) ask();
  });
}
