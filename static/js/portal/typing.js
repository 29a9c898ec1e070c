// Types text into a screen key by key. A screen knows keys, not characters: capitals need Shift, line breaks are Return.
import keysyms from "../../vendor/novnc-1.7.0/core/input/keysymdef.js";

const SHIFT = 0xffe1;
const RETURN = 0xff0d;
const TAB = 0xff09;
/** On an English (US) keyboard these need Shift; screens that know only keys would drop it. */
const SHIFTED = new Set('~!@#$%^&*()_+{}|:"<>?');
/** Slower than the smallest keyboard buffer of a machine (16 keys), faster than a person. */
const KEY_MS = 12;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The keys that make the text: [keysym, whether with Shift]. Accents are joined to their letters first. */
export function keysOf(text) {
  const keys = [];
  for (const character of text.normalize("NFC").replace(/\r\n?/g, "\n")) {
    if (character === "\n") keys.push([RETURN, false]);
    else if (character === "\t") keys.push([TAB, false]);
    else {
      const isCapital = character !== character.toLowerCase() && character === character.toUpperCase();
      keys.push([keysyms.lookup(character.codePointAt(0)), isCapital || SHIFTED.has(character)]);
    }
  }
  return keys;
}

/** Resolves to true when all is typed, to false when `isOpen` said no before that. */
export async function typeText(rfb, text, isOpen) {
  for (const [keysym, withShift] of keysOf(text)) {
    if (!isOpen()) return false;
    if (withShift) rfb.sendKey(SHIFT, null, true);
    rfb.sendKey(keysym, null, true);
    rfb.sendKey(keysym, null, false);
    if (withShift) rfb.sendKey(SHIFT, null, false);
    await pause(KEY_MS);
  }
  return true;
}
