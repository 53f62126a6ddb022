// What a task made, fit to be shown: words, pictures of types that run nothing, or a file to save.

import { AnswerText } from "./penstock.js";

const LARGEST = 64 << 20;
const PICTURES = new Map([
  ["image/png", "png"], ["image/jpeg", "jpg"], ["image/webp", "webp"], ["image/gif", "gif"], ["image/avif", "avif"],
]);

/**
 * @typedef {{kind: "text", text: string, error: string}
 *   | {kind: "pictures", blobs: Blob[]}
 *   | {kind: "file", type: string}} Result
 */

/** @param {Response} reply @returns {Promise<Result>} */
export async function readResult(reply) {
  const type = (reply.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
  const readable = PICTURES.has(type) || ["application/json", "text/event-stream", "text/plain", ""].includes(type);
  if (!readable || Number(reply.headers.get("content-length") ?? 0) > LARGEST) {
    await reply.body?.cancel();
    return { kind: "file", type };
  }
  if (PICTURES.has(type)) {
    return { kind: "pictures", blobs: [new Blob([await reply.arrayBuffer()], { type })] };
  }
  const text = await reply.text();
  const blobs = type === "application/json" ? picturesIn(text) : [];
  if (blobs.length > 0) {
    return { kind: "pictures", blobs };
  }
  const answer = new AnswerText();
  return { kind: "text", text: type === "text/plain" ? text : answer.push(text) + answer.end(), error: answer.error };
}

export const extensionOf = (type) => PICTURES.get(type) ?? "txt";

// OpenAI's answer of pictures: {"data": [{"b64_json": ...}]}.
function picturesIn(json) {
  try {
    return JSON.parse(json).data.flatMap(({ b64_json }) => {
      const bytes = Uint8Array.from(atob(b64_json), (character) => character.charCodeAt(0));
      const type = sniffed(bytes);
      return type ? [new Blob([bytes], { type })] : [];
    });
  } catch {
    return [];
  }
}

// By the first bytes, as JSON has no types. What is none of these is no picture here.
function sniffed(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  return start.startsWith("\x89PNG\r\n\x1a\n") ? "image/png"
    : start.startsWith("\xff\xd8\xff") ? "image/jpeg"
      : start.startsWith("GIF8") ? "image/gif"
        : start.startsWith("RIFF") && start.endsWith("WEBP") ? "image/webp"
          : start.slice(4, 12) === "ftypavif" ? "image/avif" : "";
}

/** Saves a blob under a name of ours. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
