// Light or dark: what was chosen here, else what the system says, also when that changes.
//
// The page's own attribute, since Reflex sets and resets the class of the same purpose whenever it
// likes. `dashboard/components/frame.py` sets it before the first paint.

const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = stored();

function stored() {
  try {
    return localStorage.getItem("chosen-theme");
  } catch {
    return null;
  }
}

function apply() {
  document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  document.dispatchEvent(new Event("theme"));
}

export const isDark = () => document.documentElement.dataset.theme === "dark";

export function turnTheme() {
  chosen = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("chosen-theme", chosen);
  } catch {
    // A browser that stores nothing follows the system's theme next time.
  }
  apply();
}

system.addEventListener("change", apply);
