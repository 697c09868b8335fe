// Light or dark: as the system is, unless somebody says otherwise.

const KEY = "flatrender.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** `light`, `dark`, or `auto`. */
export function theme() { return localStorage.getItem(KEY) ?? "auto"; }

/** Shows the theme that is chosen. */
export function dress(choice) {
  if (choice) localStorage.setItem(KEY, choice);
  const wanted = theme();
  document.documentElement.dataset.theme = wanted === "auto" ? (dark.matches ? "dark" : "light") : wanted;
}

dark.addEventListener("change", () => dress());
