// What its user is told about this desktop while its screen is open: warnings of its pool's timers, an administrator's words.
import { toast } from "../toasts.js";

export function listen(page) {
  const shown = new Set();
  const ask = async () => {
    const answer = await fetch(page.dataset.told, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) return;
    for (const { id, words } of (await answer.json()).notices) {
      if (shown.has(id)) continue;
      shown.add(id);
      toast(words, "attention");
    }
  };
  const events = new EventSource(page.dataset.live);
  events.addEventListener("notices", ask);
  window.addEventListener("pagehide", () => events.close());
  ask();
}
