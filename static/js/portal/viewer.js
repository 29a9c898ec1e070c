// The page that shows a desktop's screen: asks for a one-time ticket, opens the stream, says in words what goes on.
import RFB from "../../vendor/novnc-1.7.0/core/rfb.js";
import { toast } from "../toasts.js";
import { askState, askTicket } from "./opening.js";
import { typeText } from "./typing.js";

const byId = (id) => document.getElementById(`viewer-${id}`);
const page = document.querySelector(".viewer");
const say = document.getElementById("viewer-sentences").dataset;

/** Close codes of the relay (broker/relay/closing.py). */
const ENDED = 4000, NOT_ALLOWED = 4401, UNREACHABLE = 4404, NOT_READY = 4408, FAILED = 4409, IDLE = 4410;

const POLL_MS = 1500;
const RETRY_MS = [500, 1500, 3000, 5000, 8000, 8000];
/** A stream that stood this long was a good one: count failures from anew. */
const GOOD_MS = 10000;

let rfb = null;
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
  byId("words").textContent = words;
  byId("detail").textContent = detail;
  byId("spinner").hidden = phase !== "waiting";
  byId("steps").hidden = phase !== "waiting";
  if (step) mark(step);
  byId("reference").hidden = !reference;
  byId("reference").textContent = reference ? `${say.reference} ${reference}` : "";
  byId("retry").hidden = phase !== "stopped" || !button;
  if (button) byId("retry").textContent = button;
  for (const id of ["cad", "type"]) byId(id).disabled = phase !== "open";
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

function stream({ url, subprotocols }, isCurrent) {
  waiting(say.connecting, "Connecting");
  const socket = new WebSocket(url, subprotocols);
  let closing = { code: 1006, reason: "" };
  socket.addEventListener("close", ({ code, reason }) => (closing = { code, reason }));
  const made = new RFB(byId("screen"), socket, { shared: true });
  rfb = made;
  made.scaleViewport = true;
  made.showDotCursor = true;
  made.background = "transparent";
  made.addEventListener("connect", () => {
    if (!isCurrent()) return;
    openedAt = Date.now();
    show("open", "");
    made.focus();
    hint();
  });
  made.addEventListener("disconnect", () => {
    if (rfb === made) rfb = null;
    // The socket's own event, which bears the reason, may come a moment later.
    setTimeout(() => isCurrent() && ended(closing));
  });
  made.addEventListener("clipboard", ({ detail }) => navigator.clipboard?.writeText(detail.text).catch(() => {}));
}

function close() {
  rfb?.disconnect();
  rfb = null;
  byId("screen").replaceChildren();
}

async function ended({ code, reason }) {
  if (openedAt && Date.now() - openedAt > GOOD_MS) failures = 0;
  openedAt = 0;
  if (code === NOT_ALLOWED) return stop(say.notAllowed, reason, { button: "" });
  if (code === IDLE) return stop(say.idle, reason, { button: say.again });
  if (code === FAILED || code === UNREACHABLE || code === NOT_READY) return again(say.failed, reason);
  if (code !== ENDED) return again(say.gone, say.goneDetail);
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
  rfb?.sendCtrlAltDel();
  rfb?.focus();
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
  rfb?.focus();
});

const typing = byId("typing");
const text = document.getElementById("typing-text");
byId("type").addEventListener("click", () => {
  typing.showModal();
  text.focus();
});
document.getElementById("typing-cancel").addEventListener("click", () => typing.close());
typing.addEventListener("close", () => rfb?.focus());
typing.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const enter = document.getElementById("typing-enter").checked ? "\n" : "";
  const whole = text.value + enter;
  typing.close();
  text.value = "";
  const done = rfb && (await typeText(rfb, whole, isOpen));
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
