// Says when the server does not answer, looks for it until it does, and keeps what was typed: a form that would be sent
// into the void stays. Where nothing is wrong, nothing here stands in anybody's way.
import { toast } from "./toasts.js";

const LOOK_MS = 2000;
const GIVE_UP_MS = 5000;
const AGAIN_MS = 3000;
const AWAY = [502, 504];
/** A proxy says so for a server that does not answer. */

let isStreamOff = false;
let looking = 0;

const notice = () => document.getElementById("lost");

async function answers() {
  const { url } = notice().dataset;
  try {
    const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(GIVE_UP_MS) });
    return !AWAY.includes(answer.status);
  } catch {
    return false;
  }
}

function lose() {
  if (looking) return;
  const since = new Date();
  const time = notice().querySelector("time");
  time.dateTime = since.toISOString();
  time.textContent = since.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  notice().hidden = false;
  looking = setInterval(async () => (await answers()) && find(), LOOK_MS);
}

function find() {
  if (!looking) return;
  clearInterval(looking);
  looking = 0;
  notice().hidden = true;
  document.querySelectorAll("#toasts [data-while-lost]").forEach((box) => box.remove());
  document.dispatchEvent(new CustomEvent("deskyard:found"));
}

async function doubt() {
  if (!(await answers())) lose();
}

function keepTyped() {
  toast(notice().dataset.kept, "bad");
  document.querySelector("#toasts .toast:last-child")?.setAttribute("data-while-lost", "");
}

/** Plain forms. Sent twice in a moment it is a double click; sent while the server may be away, that is asked first. */
function guardForm(event) {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post")) return;
  const sentAt = Number(form.dataset.sentAt ?? 0);
  if (Date.now() - sentAt < AGAIN_MS) return event.preventDefault();
  const isSure = form.dataset.isSure !== undefined;
  delete form.dataset.isSure;
  if (isSure || !(isStreamOff || looking || !navigator.onLine)) {
    form.dataset.sentAt = Date.now();
    return;
  }
  event.preventDefault();
  askThenSend(form, event.submitter);
}

async function askThenSend(form, submitter) {
  if (!(await answers())) {
    lose();
    return keepTyped();
  }
  form.dataset.isSure = "";
  form.requestSubmit(submitter);
}

export function startConnection() {
  if (!notice()) return;
  document.addEventListener("submit", guardForm);
  document.addEventListener("htmx:sendError", (event) => {
    doubt();
    if (event.detail.requestConfig?.verb === "post") keepTyped();
  });
  document.addEventListener("htmx:responseError", (event) => AWAY.includes(event.detail.xhr.status) && doubt());
  document.addEventListener("deskyard:stream", (event) => {
    isStreamOff = event.detail === "off";
    if (isStreamOff) doubt();
    else find();
  });
  window.addEventListener("offline", doubt);
  window.addEventListener("online", doubt);
}
