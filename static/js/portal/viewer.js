// The page that shows a desktop's screen: asks for a one-time ticket, opens the stream, says in words what goes on.
import { toast } from "../toasts.js";
import { askAccount } from "./account.js";
import { askState, askTicket } from "./opening.js";
import { listen } from "./told.js";
import { openVnc } from "./vnc-screen.js";

const byId = (id) => document.getElementById(`viewer-${id}`);
const page = document.querySelector(".viewer");
const say = document.getElementById("viewer-sentences").dataset;

/** Close codes of the relay (broker/relay/closing.py). */
const ENDED = 4000, NOT_ALLOWED = 4401, REFUSED = 4403, UNREACHABLE = 4404, NOT_READY = 4408, FAILED = 4409, IDLE = 4410;

const POLL_MS = 1500;
const RETRY_MS = [500, 1500, 3000, 5000, 8000, 8000];
/** A stream that stood this long was a good one: count failures from anew. */
const GOOD_MS = 10000;

let screen = null;
/** Who signs in to the guest, as typed; lives in this page alone and dies with it. */
let account = null;
let wasWrong = false;
let attempt = 0;
let failures = 0;
let openedAt = 0;
let waitsSince = 0;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const isOpen = () => page.dataset.phase === "open";

// --- what is said -----------------------------------------------------------------------------------------------------

function show(phase, words, detail = "", { step, reference, button } = {}) {
  page.dataset.phase = phase;
  byId("note").hidden = phase === "open";
  byId("account").hidden = phase !== "asking";
  byId("card").hidden = phase === "asking";
  byId("words").textContent = words;
  byId("detail").textContent = detail;
  byId("spinner").hidden = phase !== "waiting";
  byId("steps").hidden = phase !== "waiting";
  if (step) mark(step);
  byId("reference").hidden = !reference;
  byId("reference").textContent = reference ? `${say.reference} ${reference}` : "";
  byId("retry").hidden = phase !== "stopped" || !button;
  if (button) byId("retry").textContent = button;
  for (const id of ["cad", "type", "scale", "picture"]) byId(id).disabled = phase !== "open";
  if (phase === "stopped" && button) byId("retry").focus();
}

function mark(step) {
  let state = "done";
  for (const item of byId("steps").children) {
    const isNow = item.dataset.step === step;
    item.dataset.state = isNow ? "now" : state;
    item.toggleAttribute("aria-current", isNow);
    if (isNow) item.setAttribute("aria-current", "step");
    if (isNow) state = "later";
  }
}

const waiting = (words, step) => {
  const seconds = Math.round((Date.now() - waitsSince) / 1000);
  show("waiting", words, seconds > 8 ? say.waited.replace("SECONDS", seconds) : "", { step });
};

const stop = (words, detail, more = {}) => show("stopped", words, detail, { button: say.try, ...more });

/** Once a visit: how to get the keyboard back. */
function hint() {
  if (matchMedia("(pointer: coarse)").matches || sessionStorage.getItem("viewer-hint")) return;
  sessionStorage.setItem("viewer-hint", "shown");
  toast(say.hint);
}

// --- opening ----------------------------------------------------------------------------------------------------------

/** From nothing to a stream. Each call makes an earlier one give up. */
async function open() {
  const mine = ++attempt;
  const isCurrent = () => mine === attempt;
  close();
  waitsSince = Date.now();
  waiting(say.connecting, "Connecting");
  while (isCurrent()) {
    const answer = await askTicket(page.dataset.connect);
    if (!isCurrent()) return;
    if (answer.status === 200) return stream(answer, isCurrent);
    if (answer.status !== 409) return refused(answer);
    if (!answer.operation) return stop(say.failed, answer.message);
    if (!(await started(isCurrent))) return;
  }
}

/** Waits until the desktop is on. False if that failed (and was said) or somebody else took over. */
async function started(isCurrent) {
  while (isCurrent()) {
    waiting(say.starting, "Starting");
    await pause(POLL_MS);
    const state = await askState(page.dataset.state);
    if (!isCurrent()) return false;
    if (state.status !== 200 && state.status !== 0) {
      refused(state);
      return false;
    }
    if (state.problem) {
      stop(say.failed, state.problem, { reference: state.reference });
      return false;
    }
    if (state.power === "on") return true;
  }
  return false;
}

function refused(answer) {
  if (answer.status === 401) return stop(say.notAllowed, say.signedOut, { button: say.signIn });
  if (answer.status === 403 || answer.status === 404) return stop(say.notAllowed, answer.message ?? "", { button: "" });
  return again(say.gone, say.goneDetail);
}

/** Tries again by itself a few times, then leaves it to the person. */
async function again(words, detail) {
  if (failures >= RETRY_MS.length) return stop(words, detail);
  const mine = attempt;
  show("waiting", say.lost, detail, { step: "Connecting" });
  await pause(RETRY_MS[failures++]);
  if (mine === attempt) open();
}

// --- the stream -------------------------------------------------------------------------------------------------------

async function stream(answer, isCurrent) {
  const on = { opened: () => isCurrent() && opened(), ended: (how) => isCurrent() && ended(how) };
  if (answer.protocol !== "rdp") {
    waiting(say.connecting, "Connecting");
    screen = openVnc(byId("screen"), answer, on);
    return;
  }
  if (answer.guest.account === "ask" && !account) {
    show("asking", "");
    account = await askAccount(wasWrong);
    wasWrong = false;
    // By now the ticket may have expired, and it was for one use anyway.
    return isCurrent() && open();
  }
  waiting(say.connecting, "Connecting");
  const { openRdp } = await import("./rdp-screen.js");
  if (!isCurrent()) return;
  const given = answer.guest.account === "ask" ? account : { user: answer.guest.user, password: "" };
  screen = openRdp(byId("screen"), answer, given, on);
}

function opened() {
  openedAt = Date.now();
  show("open", "");
  screen.fit(!isWhole());
  screen.focus();
  hint();
}

function close() {
  screen?.close();
  screen = null;
  byId("screen").replaceChildren();
}

async function ended({ code, reason, isWrongAccount, isGuest }) {
  screen = null;
  if (openedAt && Date.now() - openedAt > GOOD_MS) failures = 0;
  openedAt = 0;
  if (isWrongAccount) {
    account = null;
    wasWrong = true;
    return open();
  }
  if (code === REFUSED) return stop(say.failed, reason, { button: "" });
  if (code === NOT_ALLOWED) return stop(say.notAllowed, reason, { button: "" });
  if (code === IDLE) return stop(say.idle, reason, { button: say.again });
  if (code === FAILED || code === UNREACHABLE || code === NOT_READY) return again(say.failed, reason);
  if (code !== ENDED) return again(say.gone, say.goneDetail);
  if (isGuest) {
    // Most often its user signed out there, and does not want to be signed in again.
    account = null;
    return stop(say.ended, reason, { button: say.again });
  }
  // Switched off on purpose? Then it must not be started again behind the person's back.
  const mine = attempt;
  show("waiting", say.ended, reason, { step: "Connecting" });
  await pause(POLL_MS);
  const state = await askState(page.dataset.state);
  if (mine !== attempt) return;
  if (state.status === 200 && state.power !== "on") return stop(say.off, say.offDetail, { button: say.start });
  again(say.ended, reason);
}

// --- the toolbar ------------------------------------------------------------------------------------------------------

byId("cad").addEventListener("click", () => {
  screen?.ctrlAltDel();
  screen?.focus();
});

byId("again").addEventListener("click", () => {
  failures = 0;
  open();
});

byId("retry").addEventListener("click", () => {
  if (byId("retry").textContent === say.signIn) return location.reload();
  failures = 0;
  open();
});

byId("full").addEventListener("click", async () => {
  if (document.fullscreenElement) return document.exitFullscreen();
  // The whole document, so that messages in the corner are seen too.
  await document.documentElement.requestFullscreen?.();
  // Where the browser allows it, Escape and Alt-Tab belong to the desktop while it fills the screen.
  await navigator.keyboard?.lock?.().catch(() => {});
  screen?.focus();
});

/** Whether a point of the desktop is a point here; else the picture fits the window. The browser remembers it. */
const isWhole = () => byId("scale").getAttribute("aria-pressed") === "true";
byId("scale").setAttribute("aria-pressed", localStorage.getItem("viewer-whole") === "yes");
byId("scale").addEventListener("click", () => {
  const whole = !isWhole();
  byId("scale").setAttribute("aria-pressed", whole);
  localStorage.setItem("viewer-whole", whole ? "yes" : "no");
  screen?.fit(!whole);
  screen?.focus();
});

byId("picture").addEventListener("click", () => {
  const canvas = byId("screen").querySelector("canvas");
  canvas?.toBlob((blob) => {
    if (!blob) return toast(say.noPicture, "attention");
    const link = document.createElement("a");
    const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60000);
    link.download = `${page.dataset.name} ${now.toISOString().slice(0, 19).replace("T", " ").replaceAll(":", "-")}.png`;
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    toast(say.picture, "good");
  });
  screen?.focus();
});

const typing = byId("typing");
const text = document.getElementById("typing-text");
byId("type").addEventListener("click", () => {
  typing.showModal();
  text.focus();
});
document.getElementById("typing-cancel").addEventListener("click", () => typing.close());
typing.addEventListener("close", () => screen?.focus());
typing.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const enter = document.getElementById("typing-enter").checked ? "\n" : "";
  const whole = text.value + enter;
  typing.close();
  text.value = "";
  const done = screen && (await screen.type(whole, isOpen));
  toast(done ? say.typed : say.typingLost, done ? "good" : "attention");
});

// The screen takes every key. Ctrl, Alt and Shift together give the keyboard back to the page.
window.addEventListener(
  "keydown",
  (event) => {
    if (!isOpen() || !(event.ctrlKey && event.altKey && event.shiftKey)) return;
    if (!["Control", "Alt", "Shift"].includes(event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    byId("leave").focus();
  },
  true,
);

window.addEventListener("beforeunload", (event) => {
  if (isOpen() && !leaves) event.preventDefault();
});
let leaves = false;
// Who clicks on the way out, or releases the desktop, means it.
document.addEventListener("click", (event) => (leaves ||= !!event.target.closest(`a[href="${page.dataset.home}"]`)));
document.addEventListener("htmx:beforeOnLoad", (event) => (leaves ||= !!event.detail.xhr.getResponseHeader("HX-Redirect")));
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", (event) => event.persisted && open());

open();
listen(page);
