// Draws one circuit (views/graph/scene.py) with vis-network. The page and the widget share this
// file; COLOURS stands before it, from views/colours.py.
// All text goes through textContent or the canvas, so a label can never become markup.

const FONT = 'Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif';
const FADED = 0.07, BEND = 0.45, LEGIBLE = 0.65, HALO = `${COLOURS.PAPER}eb`;

const OPTIONS = {
  physics: false,
  layout: { improvedLayout: false },
  interaction: { hover: true, hoverConnectedEdges: false, selectConnectedEdges: false, multiselect: false, tooltipDelay: 1e8 },
  nodes: {
    borderWidth: 1.5, borderWidthSelected: 3.5, chosen: false,
    font: { size: 12, face: FONT, color: COLOURS.TEXT, strokeWidth: 4, strokeColor: HALO, vadjust: -3 },
  },
  edges: {
    selectionWidth: 0, hoverWidth: 0, chosen: false,
  },
};

const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toPrecision(2);
const plain = (x) => (Number.isFinite(x) ? String(Number(x.toPrecision(3))) : "–");
const nameOf = (node) => node.name || `${node.kind} ${node.feature}`;

// Where a node stands, in words.
function placeOf(node, scene) {
  if (node.kind === "target") return "target";
  if (node.kind === "supernode") return `supernode of ${node.members.length}`;
  const at = tokenOf(node, scene);
  if (node.kind === "token") return `word${at}`;
  return `${node.site} · ${node.kind}${node.kind === "error" ? "" : ` ${node.feature}`}${at}`;
}

function tokenOf({ position }, { tokens }) {
  if (!position) return "";
  return tokens ? ` at “${tokens[position].trim()}” (${position})` : ` at ${position}`;
}

const siteOf = (node, scene) => (node.kind === "token" ? "word" : node.site) + tokenOf(node, scene);

function numbersOf({ kind, activation, score }, { header }) {
  const told = [`${header.score} ${plain(score)}`];
  if (!["target", "token", "supernode", "error"].includes(kind)) told.unshift(`${header.activation} ${plain(activation)}`);
  return kind === "target" ? "" : told.join(" · ");
}

// What a node is driven by and what it drives, strongest first.
function edgesOf(node, { edges }) {
  const ends = [["driven by", "to", "from"], ["drives", "from", "to"]];
  return ends.map(([words, here, there]) => [words, there, edges.filter((edge) => edge[here] === node.id).reverse()])
    .filter(([, , found]) => found.length);
}

function element(tag, className, text, parent) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function fillHeader(head, { title, size, evidence, tone, settings }) {
  head.replaceChildren();
  element("span", "ct-title", title, head);
  element("span", "ct-size", size, head);
  const made = element("span", "ct-settings", undefined, head);
  settings.forEach(([key, value], i) => {
    made.append(`${i ? "  ·  " : ""}${key} `);
    element("b", "", value, made);
  });
  const lines = element("div", `ct-evidence ct-${tone}`, undefined, head);
  for (const line of evidence) element("span", "", line, lines);
}

function fillFooter(foot, { score }) {
  foot.replaceChildren();
  for (const [colour, words] of [[COLOURS.POSITIVE, "raises"], [COLOURS.NEGATIVE, "lowers"]]) {
    const entry = element("span", "", undefined, foot);
    element("i", "", undefined, entry).style.background = colour;
    entry.append(words);
  }
  element("span", "", "line width: edge score · dashed: refuted", foot);
  element("span", "", `node size: ${score}`, foot);
  element("span", "ct-hint", "hover: details · click: select · drag: move · ctrl + wheel: zoom", foot);
}

const shade = (i) => (i % 2 ? COLOURS.PAPER : COLOURS.BAND);

// A colour mixed with white: unlike a transparent one, it hides the lines behind it.
function paled(colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgb(${parts.map((part) => Math.round(255 - 0.18 * (255 - part))).join(",")})`;
}

// A node as vis-network wants it; `faded` and `ringed` are what hovering and selecting change.
function styled(node, faded, ringed) {
  const box = node.shape === "box", background = faded ? paled(node.color) : node.color;
  const border = !box ? COLOURS.PAPER : faded ? background : node.border ?? background;
  const colour = { background, border: ringed ? COLOURS.RING : border };
  const font = box ? { color: faded && node.border ? COLOURS.GREY : node.ink, size: node.kind === "token" ? 12 : 13, vadjust: 0, strokeWidth: 0 }
    : { color: faded ? COLOURS.RULE : COLOURS.TEXT, strokeWidth: faded ? 0 : 4 };
  return { id: node.id, borderWidth: ringed ? 4 : 1.5, color: { ...colour, highlight: colour, hover: colour }, font };
}

// An edge with an id; the widget sends rows of the nodes, pyvis writes ids. What is solid is said to
// be, since it may be drawn over a dashed one.
function completed(edge, { nodes, upwards }) {
  const [from, to] = [edge.from, edge.to].map((end) => (typeof end === "number" ? nodes[end].id : end));
  const color = { color: edge.color, opacity: edge.opacity };
  const smooth = edge.aside ? { enabled: true, type: "curvedCW", roundness: edge.aside }
    : { enabled: true, type: "cubicBezier", forceDirection: upwards ? "vertical" : "horizontal", roundness: BEND };
  return { dashes: false, ...edge, id: `${from} > ${to}`, from, to, color, smooth };
}

function drawCircuit(vis, root, first, hooks = {}) {
  root.classList.add("ct-graph");
  const head = element("header", "", undefined, root);
  const canvas = element("div", "ct-canvas", undefined, root);
  const foot = element("footer", "", undefined, root);
  const legend = element("div", "ct-legend", undefined, foot);
  const buttons = element("div", "ct-buttons", undefined, foot);
  const card = element("div", "ct-card", undefined, root);
  card.hidden = true;

  const nodes = new vis.DataSet(), edges = new vis.DataSet();
  const network = new vis.Network(canvas, { nodes, edges }, OPTIONS);
  let scene, byId, selected = "", hovered = "", hoveredEdge = "", touched = false, whole = false;

  function update(next) {
    scene = { ...next, edges: next.edges.map((edge) => completed(edge, next)) };
    byId = new Map(scene.nodes.map((node) => [node.id, node]));
    fillHeader(head, scene.header);
    fillFooter(legend, scene.header);
    replace(edges, scene.edges);
    replace(nodes, scene.nodes.map((node) => ({ ...node, ...styled(node, false, false), margin: node.kind === "token" ? 5 : 9 })));
    if (!byId.has(selected)) selected = "";
    hovered = hoveredEdge = "";
    card.hidden = true;
    touched = whole = false;
    paint();
    fit();
  }

  function replace(set, items) {  // in place: what stays is updated, not made anew
    const kept = new Set(items.map((item) => item.id));
    set.remove(set.getIds().filter((id) => !kept.has(id)));
    set.update(items);
  }

  // A long prompt is not shown as a whole, too small to read: its end is, where the answer is.
  function fit() {
    const width = canvas.clientWidth;
    if (!width || !scene) return;  // hidden, in a closed tab: the observer calls again
    const least = scene.upwards && !whole ? LEGIBLE : 0;
    const scale = Math.max(Math.min((width - 16) / scene.width, 1.15), least);
    const tall = Math.round(Math.min(Math.max(scene.height * scale + 16, 220), scene.upwards ? 1200 : 900));
    if (canvas.style.height !== `${tall}px`) canvas.style.height = `${tall}px`;
    network.setSize("100%", `${tall}px`);
    network.redraw();
    const seen = Math.max(Math.min(scale, (tall - 16) / scene.height), least);
    const [wide, high] = [(width - 16) / seen, (tall - 16) / seen];
    const position = { x: Math.max(scene.width / 2, scene.width - wide / 2), y: Math.min(scene.height / 2, high / 2) };
    network.moveTo({ position, scale: seen });
  }

  // The focus keeps its colours, with its neighbours; all else fades.
  function paint() {
    const focus = hovered || selected;
    const near = new Set([focus]);
    const lit = (edge) => (hoveredEdge ? edge.id === hoveredEdge : edge.from === focus || edge.to === focus);
    for (const edge of scene.edges) if (lit(edge)) near.add(edge.from).add(edge.to);
    const any = Boolean(focus || hoveredEdge);
    edges.update(scene.edges.map((edge) => ({
      id: edge.id,
      color: { color: edge.color.color, opacity: !any ? edge.opacity : lit(edge) ? Math.max(edge.opacity, 0.75) : FADED },
    })));
    nodes.update(scene.nodes.map((node) => styled(node, any && !near.has(node.id), node.id === selected)));
  }

  function bands(ctx) {
    const { x: start, y: top } = network.DOMtoCanvas({ x: 0, y: 0 }), scale = network.getScale();
    if (scene.upwards) return strips(ctx, start, canvas.clientWidth / scale);
    scene.bands.forEach((band, i) => {
      const last = scene.bands.length - 1;
      const [left, right] = [i ? band.left : band.left - 1e4, i < last ? band.right : band.right + 1e4];
      ctx.fillStyle = shade(i);
      ctx.fillRect(left, top, right - left, canvas.clientHeight / scale);
    });
  }

  function strips(ctx, left, width) {  // a layer each, and the words below
    scene.bands.forEach((band, i) => {
      ctx.fillStyle = shade(i + 1);
      ctx.fillRect(left, band.top, width, band.bottom - band.top);
    });
    ctx.textBaseline = "middle";
    ctx.font = `12px ${FONT}`;
    for (const { word, x, y, turned, boxed } of scene.words) {
      if (boxed) continue;  // is a node
      ctx.save();
      ctx.translate(x, y);
      if (turned) ctx.rotate(-Math.PI / 2);
      ctx.textAlign = turned ? "right" : "center";
      ctx.fillStyle = turned ? COLOURS.MUTED : COLOURS.FAINT;
      ctx.fillText(word, 0, 0);
      ctx.restore();
    }
  }

  function layers(ctx) {  // their names stay at the left of the view
    const left = Math.max(network.DOMtoCanvas({ x: 0, y: 0 }).x, 0);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.font = `600 12px ${FONT}`;
    for (const band of scene.bands) {
      const middle = (band.top + band.bottom) / 2;
      ctx.fillStyle = band.color;
      if (band.name) ctx.fillRect(left + 2, middle - 9, 3, 18);
      ctx.fillStyle = COLOURS.MUTED;
      ctx.fillText(band.name, left + 10, middle);
    }
  }

  function headings(ctx) {  // they stay at the top of the view when the graph is moved
    if (scene.upwards) return layers(ctx);
    const scale = network.getScale(), top = Math.max(network.DOMtoCanvas({ x: 0, y: 0 }).y, 0);
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    scene.bands.forEach((band, i) => {
      const middle = (band.left + band.right) / 2;
      const size = Math.min(12, (band.right - band.left) / band.name.length * 1.7);
      ctx.font = `600 ${size}px ${FONT}`;
      const wide = ctx.measureText(band.name).width;
      ctx.fillStyle = shade(i);
      ctx.fillRect(middle - wide / 2 - 4, top + 3, wide + 8, 24);
      ctx.fillStyle = COLOURS.MUTED;
      ctx.fillText(band.name, middle, top + 14);
      ctx.fillStyle = band.color;
      ctx.fillRect(middle - wide / 2, top + 23, wide, 2.5 / Math.min(scale, 1));
    });
  }

  function describe(node) {
    card.replaceChildren();
    element("div", "ct-name", nameOf(node), card);
    element("div", "ct-where", placeOf(node, scene), card);
    const numbers = numbersOf(node, scene);
    if (numbers) element("div", "ct-numbers", numbers, card);
    const active = Object.entries(node.active ?? {}).sort(([, a], [, b]) => b - a);
    if (active.length > 1) element("div", "ct-part", `active at ${active.length} tokens: ${active.slice(0, 4).map(([at, value]) => `${scene.tokens[at]} ${plain(value)}`).join(", ")}`, card);
    if (node.members) element("div", "ct-part", node.members.slice(0, 8).map(([id, label]) => label || id).join(" · ") + (node.members.length > 8 ? " …" : ""), card);
    for (const [words, there, found] of edgesOf(node, scene)) {
      element("div", "ct-part", found.length > 4 ? `${words} ${found.length}, the strongest:` : words, card);
      for (const edge of found.slice(0, 4)) line(nameOf(byId.get(edge[there])), edge);
    }
  }

  function line(text, { weight, color }) {
    const row = element("div", "ct-line", undefined, card);
    element("span", "", text, row);
    element("span", "", signed(weight), row).style.color = color.color;
  }

  function describeEdge(edge) {
    card.replaceChildren();
    const [from, to] = [byId.get(edge.from), byId.get(edge.to)];
    element("div", "ct-name", `${nameOf(from)} → ${nameOf(to)}`, card);
    element("div", "ct-where", `${from.site} → ${to.site}`, card);
    element("div", "ct-numbers", `${edge.status} · weight ${signed(edge.weight)} · score ${plain(edge.score)}`, card);
  }

  // Under or over its mark, where it hides the same column only; beside it where neither has room.
  function place(point, gap) {
    card.hidden = false;
    const [wide, tall] = [card.offsetWidth, card.offsetHeight];
    const x = point.x + canvas.offsetLeft, y = point.y + canvas.offsetTop;
    let left = x - wide / 2, top = y + gap + 16;
    if (top + tall > root.clientHeight - 4) top = y - gap - tall;
    if (top < 4) {
      top = Math.max(Math.min(y - tall / 2, root.clientHeight - tall - 4), 4);
      left = x + gap + 10 + wide > root.clientWidth ? x - gap - 10 - wide : x + gap + 10;
    }
    card.style.left = `${Math.max(Math.min(left, root.clientWidth - wide - 4), 4)}px`;
    card.style.top = `${top}px`;
  }

  function hover(node, edge, point) {
    hovered = node; hoveredEdge = edge;
    if (node) describe(byId.get(node));
    if (edge) describeEdge(edges.get(edge));
    if (node) place(network.canvasToDOM(network.getPosition(node)), (byId.get(node).size + 10) * network.getScale());
    else if (edge) place(point, 12);
    else card.hidden = true;
    paint();
    hooks.hovered?.(node);
  }

  function select(id) {
    if (id === selected || (id && !byId.has(id))) return;
    selected = id;
    paint();
  }

  network.on("beforeDrawing", (ctx) => scene && bands(ctx));
  network.on("afterDrawing", (ctx) => scene && headings(ctx));
  network.on("hoverNode", ({ node }) => hover(node, ""));
  network.on("blurNode", () => hover("", ""));
  network.on("hoverEdge", ({ edge, pointer }) => !hovered && hover("", edge, pointer.DOM));
  network.on("blurEdge", () => !hovered && hover("", ""));
  network.on("click", (event) => {
    const id = event.nodes[0] ?? "";
    select(id);
    hooks.selected?.(id);
  });
  network.on("dragStart", () => { card.hidden = true; touched = true; });
  network.on("zoom", () => { touched = true; });

  // The wheel scrolls the notebook; with ctrl or cmd it zooms.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  }, { capture: true });

  function button(text, hint, act) {
    const made = element("button", "", text, buttons);
    made.title = hint;
    made.type = "button";
    made.addEventListener("click", act);
  }
  const zoom = (factor) => { touched = true; network.moveTo({ scale: network.getScale() * factor }); };
  button("+", "zoom in", () => zoom(1.3));
  button("−", "zoom out", () => zoom(1 / 1.3));
  button("⤢", "fit", () => { touched = false; whole = true; fit(); });

  const observer = new ResizeObserver(() => { if (!touched) fit(); });
  observer.observe(root);
  update(first);
  return { update, select, button, network, canvas, drawn: () => scene, selected: () => selected, destroy() { observer.disconnect(); network.destroy(); } };
}
