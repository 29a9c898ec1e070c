// The remote desktop of a guest, shown by IronRDP: its WebAssembly draws on a canvas, keys and mouse are brought to it here.
// Its own web component is not used: it writes style attributes, which our content security policy forbids.
import { Backend, enableCredssp, init } from "../../vendor/iron-remote-desktop-rdp-0.7.0/iron-remote-desktop-rdp.js";
import { SCANCODES, keyOf } from "./scancodes.js";

const { ClipboardData, DesktopSize, DeviceEvent, InputTransaction, SessionBuilder } = Backend;

const CONTROL = 0x1d, ALT = 0x38, DELETE = 0xe053, SHIFT = 0x2a;
/** Faster than a person, slow enough for the login of a guest. */
const KEY_MS = 12;
/** How long the socket's close event, which bears the reason, is awaited after the client gave up. */
const REASON_MS = 15000;
/** Kinds of IronError that mean name or password were not right. */
const WRONG_ACCOUNT = new Set([1, 2, 3]);
const SMALLEST = { width: 800, height: 600 };
const LARGEST = { width: 3840, height: 2160 };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let isReady = null;

/** While IronRDP opens its WebSocket, which it does not hand out: tells `on.closed({code, reason})` how it was closed. */
function listenToSocket(url, closed) {
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(...how) {
      super(...how);
      if (String(how[0]) !== url && new URL(how[0]).href !== new URL(url).href) return;
      // When it lets go of the socket, IronRDP sends it a close event of its own making, without the relay's reason.
      this.addEventListener("close", ({ isTrusted, code, reason }) => isTrusted && closed({ code, reason }));
      window.WebSocket = Plain;
    }
  };
  return () => (window.WebSocket = Plain);
}

/** Even numbers, as RDP wants them, within what it can do. */
function sizeOf(place) {
  const ratio = window.devicePixelRatio || 1;
  const fit = (pixels, smallest, largest) => Math.min(largest, Math.max(smallest, Math.floor(pixels / 2) * 2));
  const { width, height } = place.getBoundingClientRect();
  return new DesktopSize(
    fit(width * Math.min(ratio, 2), SMALLEST.width, LARGEST.width),
    fit(height * Math.min(ratio, 2), SMALLEST.height, LARGEST.height),
  );
}

/**
 * Opens the stream of a ticket in `place`, as `account` {user, password}. Calls `on.opened()` once it stands, and
 * `on.ended({code, reason, isWrongAccount, isGuest})` when it ends. Returns {focus, ctrlAltDel, type, fit, close}.
 */
export function openRdp(place, answer, account, on) {
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.className = "viewer__canvas";
  place.replaceChildren(canvas);
  const screen = new Screen(canvas, answer, on);
  screen.open(place, account);
  return screen;
}

class Screen {
  #canvas;
  #answer;
  #on;
  #session = null;
  #isClosed = false;
  #clipboard = "";

  constructor(canvas, answer, on) {
    this.#canvas = canvas;
    this.#answer = answer;
    this.#on = on;
  }

  async open(place, { user, password }) {
    let closed;
    const closing = new Promise((resolve) => (closed = resolve));
    const domain = user.includes("\\") ? user.split("\\", 1)[0] : "";
    const end = async (isWrongAccount) => {
      this.#shut();
      const how = await Promise.race([closing, pause(REASON_MS).then(() => ({ code: 1006, reason: "" }))]);
      if (!this.#isClosed) this.#on.ended({ ...how, isWrongAccount, isGuest: true });
    };
    try {
      await (isReady ??= init("ERROR"));
      if (this.#isClosed) return;
      const size = sizeOf(place);
      const unlisten = listenToSocket(this.#answer.url, closed);
      try {
        this.#session = await this.#builder(size, domain ? user.slice(domain.length + 1) : user, domain, password).connect();
      } finally {
        unlisten();
      }
      if (this.#isClosed) return this.#session.shutdown();
      const { width, height } = this.#session.desktopSize();
      Object.assign(this.#canvas, { width, height });
      this.#listen();
      this.#on.opened();
      await this.#session.run();
    } catch (error) {
      console.debug(error?.backtrace?.() ?? error);
      return end(typeof error?.kind === "function" && WRONG_ACCOUNT.has(error.kind()));
    }
    return end(false);
  }

  #builder(size, user, domain, password) {
    let builder = new SessionBuilder()
      .proxyAddress(this.#answer.url)
      .destination(this.#answer.guest.name)
      .serverDomain(domain)
      .username(user)
      .password(password)
      .authToken(this.#answer.ticket)
      .desktopSize(size)
      .renderCanvas(this.#canvas)
      .setCursorStyleCallbackContext(this)
      .setCursorStyleCallback((kind, data, x, y) => this.#point(kind, data, x, y))
      .extension(enableCredssp(this.#answer.guest.account === "ask"));
    if (this.#answer.has_clipboard) {
      builder = builder
        .remoteClipboardChangedCallback((data) => this.#copied(data))
        .forceClipboardUpdateCallback(() => this.#paste());
    }
    return builder;
  }

  #point(kind, data, x, y) {
    const shapes = { none: "none", url: `url(${data}) ${x ?? 0} ${y ?? 0}, default` };
    this.#canvas.style.cursor = shapes[kind] ?? "default";
  }

  // --- clipboard --------------------------------------------------------------------------------------------------------

  #copied(data) {
    const text = data.items().find((item) => item.mimeType() === "text/plain")?.value();
    if (typeof text !== "string") return;
    this.#clipboard = text;
    navigator.clipboard?.writeText(text).catch(() => {});
  }

  /** Offers what the person copied elsewhere; where the browser does not let us read it, nothing is offered. */
  async #paste() {
    const text = await navigator.clipboard?.readText?.().catch(() => "");
    if (!text || text === this.#clipboard || !this.#session) return;
    this.#clipboard = text;
    const data = new ClipboardData();
    data.addText("text/plain", text);
    await this.#session.onClipboardPaste(data);
  }

  // --- keys and mouse ---------------------------------------------------------------------------------------------------

  #send(...events) {
    if (this.#isClosed || !this.#session) return;
    const transaction = new InputTransaction();
    for (const event of events) transaction.addEvent(event);
    try {
      this.#session.applyInputs(transaction);
    } catch {
      // The stream ended with this key still down; `run` says so.
    }
  }

  #listen() {
    const on = (name, handle) => this.#canvas.addEventListener(name, handle);
    const key = (event, make) => {
      const code = SCANCODES.get(event.code);
      if (code === undefined) return;
      event.preventDefault();
      this.#send(make(code));
    };
    on("keydown", (event) => key(event, DeviceEvent.keyPressed));
    on("keyup", (event) => key(event, DeviceEvent.keyReleased));
    on("pointerdown", (event) => this.#press(event));
    on("pointerup", (event) => this.#send(DeviceEvent.mouseButtonReleased(event.button)));
    on("pointermove", (event) => this.#send(this.#at(event)));
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => this.#wheel(event));
    on("blur", () => this.#session?.releaseAllInputs());
    on("focus", (event) => {
      this.#lock(event);
      if (this.#answer.has_clipboard) this.#paste();
    });
  }

  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const within = (pixel, size) => Math.max(0, Math.min(size - 1, Math.round(pixel)));
    return DeviceEvent.mouseMove(
      within(((clientX - left) * this.#canvas.width) / width, this.#canvas.width),
      within(((clientY - top) * this.#canvas.height) / height, this.#canvas.height),
    );
  }

  #press(event) {
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.focus();
    this.#lock(event);
    this.#send(this.#at(event), DeviceEvent.mouseButtonPressed(event.button));
  }

  #wheel(event) {
    event.preventDefault();
    const isVertical = event.deltaY !== 0;
    this.#send(DeviceEvent.wheelRotations(isVertical, -(isVertical ? event.deltaY : event.deltaX), event.deltaMode));
  }

  /** The lights of the keyboard, where the event knows them. */
  #lock(event) {
    if (!event.getModifierState) return;
    const is = (name) => event.getModifierState(name);
    this.#session?.synchronizeLockKeys(is("ScrollLock"), is("NumLock"), is("CapsLock"), is("KanaMode"));
  }

  // --- what the page does -----------------------------------------------------------------------------------------------

  fit(isFit) {
    this.#canvas.classList.toggle("viewer__canvas--whole", !isFit);
  }

  focus() {
    this.#canvas.focus({ preventScroll: true });
  }

  ctrlAltDel() {
    const keys = [CONTROL, ALT, DELETE];
    this.#send(...keys.map((code) => DeviceEvent.keyPressed(code)));
    this.#send(...keys.reverse().map((code) => DeviceEvent.keyReleased(code)));
  }

  /** Resolves to true when all is typed, to false when `isOpen` said no before that. */
  async type(text, isOpen) {
    for (const character of text.normalize("NFC").replace(/\r\n?/g, "\n")) {
      if (!isOpen()) return false;
      const [code, withShift] = keyOf(character) ?? [];
      if (code === undefined) {
        this.#send(DeviceEvent.unicodePressed(character), DeviceEvent.unicodeReleased(character));
      } else {
        if (withShift) this.#send(DeviceEvent.keyPressed(SHIFT));
        this.#send(DeviceEvent.keyPressed(code));
        this.#send(DeviceEvent.keyReleased(code));
        if (withShift) this.#send(DeviceEvent.keyReleased(SHIFT));
      }
      await pause(KEY_MS);
    }
    return true;
  }

  close() {
    this.#isClosed = true;
    this.#shut();
  }

  #shut() {
    try {
      this.#session?.shutdown();
    } catch {
      // It had ended by itself.
    }
    this.#session = null;
  }
}
