// A moment on the clock of another zone has the reader's own time beside it; a new schedule begins with the reader's zone.
const own = Intl.DateTimeFormat().resolvedOptions().timeZone;

function clock(moment, zone) {
  const parts = { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone };
  return new Intl.DateTimeFormat(document.documentElement.lang || "en", parts).format(moment);
}

function tell() {
  document.querySelectorAll("time[data-zone]:not([data-told])").forEach((place) => {
    place.dataset.told = "";
    const moment = new Date(place.dateTime);
    const mine = clock(moment, own);
    if (mine !== clock(moment, place.dataset.zone)) place.append(` · ${mine} ${own.split("/").at(-1).replaceAll("_", " ")}`);
  });
}

export function startZones() {
  tell();
  document.addEventListener("htmx:afterSwap", tell);
  document.querySelectorAll("select[data-own-zone]").forEach((select) => {
    if ([...select.options].some((option) => option.value === own)) select.value = own;
  });
}
