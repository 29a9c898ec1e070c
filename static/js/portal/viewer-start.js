// Classic script: loads the viewer's modules, and the page anew if one of them got lost on the way. Browsers drop requests
// in flight when a network of the computer comes or goes, and a module that once failed stays failed in its page.
(() => {
  const MODULE = new URL("viewer.js", document.currentScript.src).href;
  const PAUSE_MS = 1000;
  const TRIES = 3;
  const KEY = "viewer-tries";

  import(MODULE)
    .then(() => sessionStorage.removeItem(KEY))
    .catch((error) => {
      const tries = Number(sessionStorage.getItem(KEY) ?? 0) + 1;
      sessionStorage.setItem(KEY, tries);
      if (tries <= TRIES) return setTimeout(() => location.reload(), PAUSE_MS * tries);
      sessionStorage.removeItem(KEY);
      document.getElementById("viewer-words").textContent = document.getElementById("viewer-sentences").dataset.broken;
      document.getElementById("viewer-spinner").hidden = true;
      throw error;
    });
})();
