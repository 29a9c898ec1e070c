// Keys as RDP knows them: scan codes of a PC keyboard (set 1); 0xE0 in front means the extended ones.
const ROWS = [
  [0x01, "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace"],
  [0x0f, "Tab KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter"],
  [0x1d, "ControlLeft KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote"],
  [0x2a, "ShiftLeft Backslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight"],
  [0x37, "NumpadMultiply AltLeft Space CapsLock F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock"],
  [0x47, "Numpad7 Numpad8 Numpad9 NumpadSubtract Numpad4 Numpad5 Numpad6 NumpadAdd Numpad1 Numpad2 Numpad3 Numpad0"],
  [0x53, "NumpadDecimal"],
  [0x56, "IntlBackslash F11 F12 NumpadEqual"],
  [0x64, "F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23"],
  [0x70, "KanaMode"],
  [0x73, "IntlRo"],
  [0x79, "Convert"],
  [0x7b, "NonConvert"],
  [0x7d, "IntlYen"],
  [0xe01c, "NumpadEnter ControlRight"],
  [0xe035, "NumpadDivide"],
  [0xe037, "PrintScreen AltRight"],
  [0xe047, "Home ArrowUp PageUp"],
  [0xe04b, "ArrowLeft"],
  [0xe04d, "ArrowRight"],
  [0xe04f, "End ArrowDown PageDown Insert Delete"],
  [0xe05b, "MetaLeft MetaRight ContextMenu"],
];

/** The place of a key on the keyboard (KeyboardEvent.code) -> its scan code. */
export const SCANCODES = new Map(
  ROWS.flatMap(([first, names]) => names.split(" ").map((name, index) => [name, first + index])),
);

const PLAIN = "`1234567890-=[]\\;',./ \n\t";
const PLAIN_KEYS =
  "Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal BracketLeft BracketRight " +
  "Backslash Semicolon Quote Comma Period Slash Space Enter Tab";
const SHIFTED = '~!@#$%^&*()_+{}|:"<>?';
const typed = new Map();
PLAIN_KEYS.split(" ").forEach((name, index) => {
  typed.set(PLAIN[index], [SCANCODES.get(name), false]);
  if (SHIFTED[index]) typed.set(SHIFTED[index], [SCANCODES.get(name), true]);
});
for (const letter of "abcdefghijklmnopqrstuvwxyz") {
  const code = SCANCODES.get(`Key${letter.toUpperCase()}`);
  typed.set(letter, [code, false]);
  typed.set(letter.toUpperCase(), [code, true]);
}

/** How a character is typed on an English (US) keyboard: [scan code, whether with Shift]; undefined for others. */
export const keyOf = (character) => typed.get(character);
