// On a narrow screen a row of tabs is scrolled sideways: the one that is open comes into view.
export function startTabs() {
  for (const tab of document.querySelectorAll(".tabs [aria-current]")) {
    tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft;
  }
}
