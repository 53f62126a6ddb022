// Orders that were given, in words. Pure: from "POST /queues/chat/pause" to a key of words.*.json.

// By method, and path where * is a name.
const KEYS = {
  "POST /queues/*/pause": "pause",
  "POST /queues/*/resume": "resume",
  "POST /workers/*/drain": "drain",
  "POST /workers/drain": "drain.all",
  "POST /workers/*/scale": "scale",
  "DELETE /jobs/*": "cancel",
  "POST /jobs/*/replay": "replay",
  "POST /dead/*/requeue": "requeue",
  "DELETE /dead/*": "drop",
  "POST /backup": "backup",
  "DELETE /backup": "backup.end",
  "POST /upgrade": "upgrade",
};

/** @returns {?[string, Object]} a key and its values; null of what is no order, such as a change of penstock.yaml */
export function orderOf(text) {
  const [, method, path, query = ""] = /^(\w+) ([^?]*)\??(.*)$/s.exec(text) ?? [];
  const parts = (path ?? "").split("/");
  const key = KEYS[`${method} ${path}`] ?? KEYS[`${method} ${parts.map((part, i) => (i === 2 ? "*" : part)).join("/")}`];
  if (!key) {
    return null;
  }
  const asked = new URLSearchParams(query);
  const what = key === "cancel" && asked.has("purge") ? "purge" : key;
  return [`con.order.${what}`, { name: unescaped(parts[2] ?? ""), n: asked.get("n") ?? "", model: asked.get("model") ?? "" }];
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
