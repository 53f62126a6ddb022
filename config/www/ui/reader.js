// What the reader of a page has chosen, and the page's standing words in their language. #language and #theme are the buttons.

import { chosenLanguage } from "./words.js";

const LANGUAGE = "penstock.language";
const THEME = "penstock.theme";

/** The reader's choices; without storage they hold until the page goes. */
export const remembered = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value);
    } catch {
      // As above.
    }
  },
};

export function readersLanguage() {
  return chosenLanguage([remembered.get(LANGUAGE), ...navigator.languages].filter(Boolean));
}

/** The words of the other language, by `load(language)`; from now on it is the reader's. */
export async function inOtherLanguage(words, load) {
  const language = words.language === "en" ? "zh" : "en";
  const others = await load(language);
  remembered.set(LANGUAGE, language);
  return others;
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

export function changeTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  remembered.set(THEME, theme);
}

export function translateDocument(words) {
  document.documentElement.lang = words.language === "zh" ? "zh-Hans" : words.language;
  for (const node of document.querySelectorAll("[data-word]")) {
    node.textContent = words.say(node.dataset.word);
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", words.say(node.dataset.label));
  }
  const language = document.querySelector("#language");
  language.textContent = words.language === "en" ? "中文" : "English";
  language.lang = words.language === "en" ? "zh-Hans" : "en";
  document.querySelector("#theme").textContent = words.say(isDark() ? "set.light" : "set.dark");
}
