// Colours as the page has them: the style sheet names each (`--ct-ink`), JupyterLab's theme may
// change it. What Python sends is written in the colours of a light page; COLOURS stands before.

const brush = document.createElement("canvas").getContext("2d");

function channelsOf(colour) {
  brush.fillStyle = "black";
  brush.fillStyle = colour;
  const plain = brush.fillStyle;  // #rrggbb, or rgba(r, g, b, a)
  return plain[0] === "#" ? [1, 3, 5].map((at) => parseInt(plain.slice(at, at + 2), 16)) : plain.match(/[\d.]+/g).slice(0, 3).map(Number);
}

// A colour that lies over another, as one that hides what is behind it.
function mixed(colour, behind, share) {
  const [a, b] = [channelsOf(colour), channelsOf(behind)];
  return `rgb(${a.map((part, i) => Math.round(share * part + (1 - share) * b[i])).join(",")})`;
}

function themeOf(root) {
  const style = getComputedStyle(root);
  const named = Object.fromEntries(Object.entries(COLOURS).map(([name, light]) =>
    [name, style.getPropertyValue(`--ct-${name.toLowerCase().replaceAll("_", "-")}`).trim() || light]));
  const names = Object.fromEntries(Object.entries(COLOURS).reverse().map(([name, light]) => [light, name]));
  const dark = channelsOf(named.PAPER).reduce((sum, part) => sum + part) < 3 * 128;
  const of = (colour) => (names[colour] ? named[names[colour]] : dark ? mixed(colour, "white", 0.62) : colour);
  return { ...named, dark, of, pale: (colour) => mixed(colour, named.PAPER, 0.18) };
}

// Call again when JupyterLab's theme changes; returns what stops it.
function onTheme(act) {
  const observer = new MutationObserver(act);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  return () => observer.disconnect();
}
