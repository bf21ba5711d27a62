// Before the first paint: the theme chosen earlier, else the system's.
"use strict";
document.documentElement.dataset.theme =
  localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
