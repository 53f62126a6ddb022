// The reader's theme, before anything is painted.
"use strict";
{
  let theme = null;
  try {
    theme = localStorage.getItem("penstock.theme");
  } catch {
    // Storage is off: the system's theme it is.
  }
  if (theme === "dark" || theme === "light") {
    document.documentElement.dataset.theme = theme;
  }
}
