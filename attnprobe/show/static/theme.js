/** Dark or light, as the host is: JupyterLab, VS Code, a documentation page, or the system's choice. */

/** Whether the page around an element is dark. */
export function isDark() {
  const { body, documentElement: root } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return true;
  if (body.classList.contains("vscode-light")) return false;
  const told = body.dataset.theme ?? root.dataset.theme;
  if (told === "dark" || told === "light") return told === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call back whenever that changes; gives a function that stops it. */
export function watchTheme(change) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(change);
  const names = { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-light"] };
  observer.observe(document.body, names);
  observer.observe(document.documentElement, names);
  media.addEventListener("change", change);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", change);
  };
}
