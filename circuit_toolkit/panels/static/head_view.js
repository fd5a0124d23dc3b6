// A map of heads, of which some are chosen, and their attention patterns. library.js,
// views/static/theme.js, graph.js and parts.js stand before it in one module.

const svg = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const same = (a, b) => a[0] === b[0] && a[1] === b[1];
const percent = (share) => `${Math.round(100 * share)}%`;
const number = (value) => String(Number(value.toPrecision(3)));
const short = (word) => (word.length > 10 ? `${word.slice(0, 9)}…` : word);

const drawMap = (box, said, { scores, layers, rings, unit }, chosen, choose) => {
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  box.replaceChildren();
  if (!scores) return;
  const most = Math.max(...scores.flat().map(Math.abs), 1e-12);
  const hint = `Colour: ${unit}, up to ${number(most)}${rings.length ? "; ringed: known heads" : ""}`;
  box.setAttribute("aria-label", `Scores of heads, ${unit}`);
  const header = box.appendChild(element("div", "ct-head-row"));
  header.setAttribute("role", "row");
  for (const text of ["", ...scores[0].map((_, head) => head)]) {
    header.appendChild(element("span", "ct-head-axis", text)).setAttribute("role", "columnheader");
  }
  const cells = [];
  scores.forEach((values, row) => {
    const line = box.appendChild(element("div", "ct-head-row"));
    line.setAttribute("role", "row");
    line.appendChild(element("span", "ct-head-axis", `layer ${layers[row]}`)).setAttribute("role", "rowheader");
    cells.push(values.map((value, head) => {
      const at = [layers[row], head];
      const ringed = rings.some((ring) => same(ring, at));
      const name = `a${at[0]}.h${head}: ${number(value)} ${unit}${ringed ? ", known" : ""}`;
      const cell = line.appendChild(element("button", `ct-head${ringed ? " ct-known" : ""}${value < 0 ? " ct-below" : ""}`));
      cell.type = "button";
      cell.dataset.at = `${row},${head}`;
      cell.tabIndex = -1;
      cell.style.setProperty("--share", (0.06 + 0.94 * Math.abs(value) / most).toFixed(3));
      cell.title = name;
      for (const [key, text] of [["role", "gridcell"], ["aria-label", name],
        ["aria-selected", chosen.some((each) => same(each, at))]]) cell.setAttribute(key, text);
      const tell = () => { said.textContent = name; };
      cell.onmouseenter = cell.onfocus = tell;
      cell.onmouseleave = cell.onblur = () => { said.textContent = hint; };
      cell.onclick = (event) => choose(at, event.shiftKey || event.ctrlKey || event.metaKey);
      return cell;
    }));
  });
  said.textContent = hint;
  box.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const at = event.target.dataset?.at?.split(",").map(Number);
    if (event.key === "Escape") choose(null);
    if (!step || !at) return;
    event.preventDefault();
    event.stopPropagation();
    const next = cells[at[0] + step[0]]?.[at[1] + step[1]];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  const first = chosen.length ? [layers.indexOf(chosen[0][0]), chosen[0][1]].join(",") : "0,0";
  const all = cells.flat();
  const start = all.find((cell) => cell.dataset.at === (focused ?? first)) ?? all[0];
  start.tabIndex = 0;
  if (focused) start.focus();
};

const drawPattern = ({ name, cells, last }, words) => {
  const n = words.length, room = 62, aside = 32; // px for the words to the left and above; for those that lean out
  const size = Math.min(Math.max(Math.floor(230 / n), 10), 16);
  const figure = element("figure", "ct-pattern");
  figure.appendChild(element("figcaption", "", name));
  const side = room + n * size;
  const picture = figure.appendChild(svg("svg", { width: side + aside, height: side, role: "img", tabindex: 0,
    viewBox: `0 0 ${side + aside} ${side}`, "aria-label": `Attention of ${name}: ${last}` }));
  picture.appendChild(svg("path", { class: "ct-seen",
    d: `M${room} ${room} ${words.map((_, i) => `H${room + (i + 1) * size} V${room + (i + 1) * size}`).join(" ")} H${room}Z` }));
  words.forEach((word, i) => {
    const middle = room + (i + 0.5) * size;
    picture.appendChild(svg("text", { x: room - 4, y: middle, class: "ct-row" }, short(word)));
    picture.appendChild(svg("text", { x: 0, y: 0, class: "ct-column", transform: `translate(${middle} ${room - 4}) rotate(-60)` }, short(word)));
  });
  for (const [row, column, share] of cells) {
    const cell = picture.appendChild(svg("rect", { x: room + column * size, y: room + row * size,
      width: size - 1, height: size - 1, class: "ct-look", "fill-opacity": share }));
    cell.appendChild(svg("title", {}, `${words[row]} looks at ${words[column]}: ${percent(share)}`));
  }
  figure.appendChild(element("div", "ct-last", last));
  return figure;
};

const drawPatterns = (box, { words, heads, more }) => {
  box.replaceChildren(...(heads ?? []).map((head) => drawPattern(head, words)));
  if (more) box.appendChild(element("div", "ct-last", `and ${more} more that are selected`));
};
