// Light, dark or as the system has it; kept in a cookie, so that the server sends the page right the first time.
const YEAR_S = 31536000;

export function startTheme() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-set-theme]");
    if (!button) return;
    const theme = button.dataset.setTheme;
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `deskyard_theme=${theme}; path=/; max-age=${theme ? YEAR_S : 0}; samesite=lax${secure}`;
  });
}
