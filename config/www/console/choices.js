import { el } from "../ui/el.js";

/** The choices of a list, kept as long as they are there. */
export function choices(select, values) {
  const now = [...select.options].map(({ value, textContent }) => `${value}\n${textContent}`).join("\n");
  if (now === values.map(([value, text]) => `${value}\n${text}`).join("\n")) {
    return;
  }
  const chosen = select.value;
  select.replaceChildren(...values.map(([value, text]) => el("option", { value }, text)));
  select.value = values.some(([value]) => value === chosen) ? chosen : values[0]?.[0] ?? "";
}
