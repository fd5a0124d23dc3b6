// Pictures of the toolkit follow JupyterLab's theme, by an attribute of the body: here it says the site's.
function follow() {
  const dark = document.body.getAttribute("data-md-color-scheme") === "slate";
  document.body.dataset.jpThemeLight = String(!dark);
}
follow();
new MutationObserver(follow).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
