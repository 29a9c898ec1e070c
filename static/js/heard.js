// What an answer tells (HX-Trigger) is told on the element that asked. If a live part was made anew meanwhile and the
// element went with it, nobody would hear it: then it is told to the page.
function tell({ xhr, elt }) {
  if (xhr.readyState !== XMLHttpRequest.DONE || elt.isConnected) return;
  const told = xhr.getResponseHeader("HX-Trigger");
  if (!told?.startsWith("{")) return;
  for (const [name, detail] of Object.entries(JSON.parse(told))) {
    document.body.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));
  }
}

export function startHearing() {
  document.addEventListener("htmx:beforeSend", ({ detail }) => {
    detail.xhr.addEventListener("readystatechange", () => tell(detail));
  });
}
