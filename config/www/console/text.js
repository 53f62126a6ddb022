// Text from anybody over several lines, told in pieces. Lines and tabs stay; what else has no shape, or turns others round, is a mark.

const MARKS = /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u200E\u200F\u061C\u202A-\u202E\u2066-\u2069\uFEFF]/gu;
export const FIRST_PIECE = 4096;
export const PIECE = 65_536;

export const block = (text) => String(text ?? "").replace(/\r\n?/g, "\n").replace(MARKS, "\uFFFD");

/** JSON is laid out for reading; what is none stays as it is. */
export function laidOut(text, type = "") {
  if (/json/i.test(type) || /^\s*[[{]/.test(text)) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // As it is.
    }
  }
  return text;
}
