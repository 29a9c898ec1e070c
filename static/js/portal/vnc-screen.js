// The screen of a machine, shown by noVNC.
import RFB from "../../vendor/novnc-1.7.0/core/rfb.js";
import { typeText } from "./typing.js";

/**
 * Opens the stream of a ticket in `place`. Calls `on.opened()` once it stands and `on.ended({code, reason})` when it ends.
 * Returns {focus, ctrlAltDel, type, fit, close}.
 */
export function openVnc(place, { url, subprotocols, has_clipboard }, on) {
  const socket = new WebSocket(url, subprotocols);
  let closing = { code: 1006, reason: "" };
  let isGone = false;
  socket.addEventListener("close", ({ code, reason }) => (closing = { code, reason }));
  const rfb = new RFB(place, socket, { shared: true });
  rfb.scaleViewport = true;
  rfb.showDotCursor = true;
  rfb.background = "transparent";
  rfb.addEventListener("connect", () => on.opened());
  // The socket's own event, which bears the reason, may come a moment later.
  rfb.addEventListener("disconnect", () => {
    isGone = true;
    setTimeout(() => on.ended(closing));
  });
  rfb.addEventListener("clipboard", ({ detail }) => has_clipboard && navigator.clipboard?.writeText(detail.text).catch(() => {}));
  return {
    focus: () => rfb.focus(),
    ctrlAltDel: () => rfb.sendCtrlAltDel(),
    type: (text, isOpen) => typeText(rfb, text, isOpen),
    fit: (isFit) => (rfb.scaleViewport = isFit),
    // noVNC complains of a second end, which comes when somebody opens anew in the moment in which the stream breaks.
    close: () => isGone || rfb.disconnect(),
  };
}
