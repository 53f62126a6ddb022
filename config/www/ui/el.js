// The only way this page makes elements: names, properties and text. There are no HTML strings, and
// the page's policy (Trusted Types) refuses any.

/**
 * @param {string} tag
 * @param {Object} [props]  attributes; `on`: {click: handler}; `style`: {left: "3%"}; null: none
 * @param {...(Node|string)} children  strings are text
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  set(node, props);
  node.append(...children);
  return node;
}

/** Sets what differs. An attribute that is null, undefined or false is taken away. */
export function set(node, props) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) {
        node.addEventListener(event, handler);
      }
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) {
        node.style.setProperty(property, text);
      }
    } else if (/^on|^srcdoc$/i.test(name)) {
      throw new TypeError(`el: ${name} is no attribute for this page`);
    } else if (value === null || value === undefined || value === false) {
      node.removeAttribute(name);
    } else if (node.getAttribute(name) !== String(value === true ? "" : value)) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  return node;
}

/** Writes text only where it differs, so that nothing is selected away or read out again. */
export function say(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
  node.hidden = text === "";
  return node;
}

// What reorders or hides a line, and what has no shape, is shown as a mark.
const MARKS = /[\u0000-\u001F\u007F-\u009F\u200E\u200F\u061C\u202A-\u202E\u2066-\u2069\uFEFF]/gu;

/** Text from anybody, fit for one line: names, labels, errors. */
export function plain(text, most = 2000) {
  const line = String(text ?? "").slice(0, most + 1).replace(/[\t\n\r]+/g, " ").replace(MARKS, "\uFFFD");
  return line.length > most ? `${line.slice(0, most)}…` : line;
}

/** @returns {HTMLElement} text from anybody, which cannot turn its neighbours round */
export const bdi = (text) => el("bdi", { dir: "auto" }, plain(text));
