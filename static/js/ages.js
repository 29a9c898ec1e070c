// "3 min ago" must not stay true for an hour: every <time data-age> is told anew every few seconds.
const EVERY_MS = 5000;
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const JUST_NOW_S = 5;

function words(moment, format) {
  const seconds = Math.round((moment - Date.now()) / 1000);
  const [unit, length] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return format.format(Math.trunc(seconds / length), unit);
}

function tell(format) {
  document.querySelectorAll("time[data-age]").forEach((place) => {
    const moment = Date.parse(place.dateTime);
    if (Number.isNaN(moment) || Math.abs(moment - Date.now()) < JUST_NOW_S * 1000) return;
    const text = words(moment, format);
    if (place.textContent !== text) place.textContent = text;
  });
}

export function startAges() {
  const format = new Intl.RelativeTimeFormat(document.documentElement.lang || "en", { style: "short" });
  tell(format);
  setInterval(() => tell(format), EVERY_MS);
  document.addEventListener("htmx:afterSwap", () => tell(format));
}
