// Draws one circuit (views/graph/scene.py) with vis-network. The page and the widgets share this
// file; COLOURS (views/colours.py) and theme.js stand before it.
// All text goes through textContent or the canvas, so a label can never become markup.

const FONT = 'Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif';
const FADED = 0.07, BEND = 0.45, LEGIBLE = 0.65, FADE = 160;  // ms in which nodes come and go
const UNTESTED = 0.6;  // of its width: a thin line

const OPTIONS = {
  physics: false,
  layout: { improvedLayout: false },
  interaction: { hover: true, hoverConnectedEdges: false, selectConnectedEdges: false, multiselect: false, tooltipDelay: 1e8 },
  nodes: {
    borderWidth: 1.5, borderWidthSelected: 3.5, chosen: false,
    font: { size: 12, face: FONT, strokeWidth: 4, vadjust: -3 },
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

function tokenOf({ position, at }, { tokens, one_prompt }) {
  if (!position) return "";
  return one_prompt ? ` at “${tokens[at].trim()}” (${at})` : ` at ${position}`;
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

function fillFooter(foot, { score }, theme) {
  foot.replaceChildren();
  for (const [colour, words, sign] of [[theme.POSITIVE, "raises", ""], [theme.NEGATIVE, "lowers (a tick)", "ct-tick"]]) {
    const entry = element("span", "", undefined, foot);
    element("i", sign, undefined, entry).style.background = colour;
    entry.append(words);
  }
  element("span", "", "width: edge score · thin: untested · dashed: refuted", foot);
  element("span", "", `node size: ${score}`, foot);
  element("span", "ct-hint", "click or arrow keys: select · drag: move · ctrl + wheel: zoom", foot);
}

// A node as vis-network wants it; `faded` and `ringed` are what hovering and selecting change.
function styled(node, faded, ringed, theme, pinned) {
  const box = node.shape === "box", own = theme.of(node.color), background = faded ? theme.pale(own) : own;
  const edge = node.border && theme.of(node.border);
  const border = !box ? theme.PAPER : faded ? background : edge ?? background;
  const colour = { background, border: ringed ? theme.RING : border };
  const font = box ? { color: faded && edge ? theme.GREY : theme.of(node.ink), size: node.kind === "token" ? 12 : 13, vadjust: 0, strokeWidth: 0 }
    : { color: faded ? theme.RULE : theme.TEXT, strokeColor: theme.PAPER, strokeWidth: faded ? 0 : 4 };
  if (pinned && !ringed) colour.border = theme.INK;
  return { id: node.id, borderWidth: ringed ? 4 : pinned ? 2.5 : 1.5, color: { ...colour, highlight: colour, hover: colour }, font };
}

// An edge with an id; the widget sends rows of the nodes, pyvis writes ids. What is solid is said to
// be, since it may be drawn over a dashed one; what lowers its target has a tick.
function completed(edge, { nodes, upwards }, theme) {
  const [from, to] = [edge.from, edge.to].map((end) => (typeof end === "number" ? nodes[end].id : end));
  const color = { color: edge.weight < 0 ? theme.NEGATIVE : theme.POSITIVE, opacity: edge.opacity };
  const smooth = edge.aside ? { enabled: true, type: "curvedCW", roundness: edge.aside }
    : { enabled: true, type: "cubicBezier", forceDirection: upwards ? "vertical" : "horizontal", roundness: BEND };
  const arrows = { middle: { enabled: edge.weight < 0, type: "bar", scaleFactor: 0.35 } };
  const width = edge.width * (edge.status === "untested" ? UNTESTED : 1);
  return { dashes: false, ...edge, width, arrows, id: `${from} > ${to}`, from, to, color, smooth };
}

// hooks: selected(ids), hovered(id), and renamed(id), key(name) where there is more to do; with
// `bare` there is no header, no footer and the height is that of the root; with `several` a click
// with shift adds to the selection.
function drawCircuit(vis, root, first, hooks = {}) {
  root.classList.add("ct-graph");
  const head = element("header", "", undefined, root);
  const canvas = element("div", "ct-canvas", undefined, root);
  const foot = element("footer", "", undefined, root);
  const legend = element("div", "ct-legend", undefined, foot);
  const buttons = element("div", "ct-buttons", undefined, hooks.bare ? root : foot);
  const card = element("div", "ct-card", undefined, root);
  const heard = element("div", "ct-unseen", undefined, root);
  head.hidden = foot.hidden = Boolean(hooks.bare);
  root.classList.toggle("ct-bare", Boolean(hooks.bare));
  card.hidden = true;
  heard.setAttribute("aria-live", "polite");
  canvas.tabIndex = 0;
  canvas.dataset.lmSuppressShortcuts = "true";  // keys are the graph's, not the notebook's
  canvas.setAttribute("role", "listbox");
  canvas.setAttribute("aria-multiselectable", String(Boolean(hooks.several)));

  const nodes = new vis.DataSet(), edges = new vis.DataSet();
  const network = new vis.Network(canvas, { nodes, edges }, OPTIONS);
  // It looks nodes up by name in plain objects, which know "toString" and "constructor" too.
  const { body, clustering } = network;
  for (const known of [body.nodes, body.edges, clustering.clusteredNodes, clustering.clusteredEdges]) {
    Object.setPrototypeOf(known, null);
  }
  network.canvas.frame.removeAttribute("tabindex");  // one stop of the tab key, not two
  const options = element("div", "ct-unseen", undefined, canvas);  // what a screen reader reads
  let theme = themeOf(root), scene, byId, shown, selected = [], found = new Set(), pinned = new Set(), fading = new Set();
  const written = new Map([[nodes, new Map()], [edges, new Map()]]);  // by id, as they are drawn
  let hovered = "", hoveredEdge = "", touched = false, whole = false, frame = 0;
  const unique = `ct-${Math.random().toString(36).slice(2)}`;

  function update(next) {
    const stays = scene?.key !== undefined && scene.key === next.key;
    const before = stays ? new Map(byId) : new Map();
    shown = next;
    scene = { ...next, edges: next.edges.map((edge) => completed(edge, next, theme)) };
    byId = new Map(scene.nodes.map((node) => [node.id, node]));
    const byEdge = new Set(scene.edges.map((edge) => edge.id));
    fillHeader(head, scene.header);
    fillFooter(legend, scene.header, theme);
    const added = new Set(stays ? scene.nodes.map((node) => node.id).filter((id) => !before.has(id)) : []);
    const gone = stays ? [...before.keys()].filter((id) => !byId.has(id)) : [];
    selected = selected.filter((id) => byId.has(id));
    hovered = hoveredEdge = "";
    card.hidden = true;
    list();
    if (!stays) touched = whole = false;
    keep(edges, byEdge);
    keep(nodes, new Set([...byId.keys(), ...gone]));
    paint(new Map(scene.nodes.filter(({ id }) => !before.has(id)).map(({ id, x, y }) => [id, { x, y, opacity: added.has(id) ? 0.05 : 1 }])));
    if (!touched) fit();
    fade(added, gone);
  }

  function keep(set, ids) {  // what stays is not made anew
    const left = set.getIds().filter((id) => !ids.has(id));
    for (const id of left) written.get(set).delete(id);
    set.remove(left);
  }

  // Only what changed: vis-network makes all of a node or an edge anew.
  function write(set, items, places = new Map()) {
    const known = written.get(set);
    set.update(items.filter((item) => {
      const text = JSON.stringify(item), before = known.get(item.id);
      known.set(item.id, text);
      return text !== before || places.has(item.id);
    }).map((item) => ({ ...item, ...places.get(item.id) })));
  }

  // What is new comes slowly, what is gone goes slowly; nothing else moves.
  function fade(added, gone) {
    cancelAnimationFrame(frame);
    const half = [...fading].filter((id) => byId.has(id) && !added.has(id));
    if (half.length) nodes.update(half.map((id) => ({ id, opacity: 1 })));
    fading = added;
    if (!added.size && !gone.length) return;
    const start = performance.now();
    const step = (now) => {
      const share = Math.max(0, Math.min((now - start) / FADE, 1));
      if (share === 1) nodes.remove(gone.filter((id) => !byId.has(id)));
      nodes.update([
        ...[...added].filter((id) => byId.has(id)).map((id) => ({ id, opacity: share })),
        ...(share === 1 ? [] : gone.filter((id) => nodes.get(id) && !byId.has(id)).map((id) => ({ id, opacity: 1 - share }))),
      ]);
      if (share < 1) frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
  }

  // A long prompt is not shown as a whole, too small to read: its end is, where the answer is.
  function fit() {
    const width = canvas.clientWidth, room = hooks.bare ? canvas.clientHeight - 12 : Infinity;
    if (!width || !scene || room < 20) return;  // hidden, in a closed tab: the observer calls again
    const least = scene.upwards && !whole ? (hooks.bare ? 0.55 : LEGIBLE) : 0;
    const scale = Math.max(Math.min((width - 16) / scene.width, room / scene.height, 1.15), least);
    const tall = hooks.bare ? room + 12 : Math.round(Math.min(Math.max(scene.height * scale + 16, 220), scene.upwards ? 1200 : 900));
    if (!hooks.bare && canvas.style.height !== `${tall}px`) canvas.style.height = `${tall}px`;
    network.setSize("100%", `${tall}px`);
    network.redraw();
    const seen = Math.max(Math.min(scale, (tall - 16) / scene.height), least);
    const [wide, high] = [(width - 16) / seen, (tall - 16) / seen];
    const position = { x: Math.max(scene.width / 2, scene.width - wide / 2), y: Math.min(scene.height / 2, high / 2) };
    network.moveTo({ position, scale: seen });
  }

  // The focus keeps its colours, with its neighbours; all else fades.
  function paint(places) {
    const focus = new Set(hovered ? [hovered] : selected);
    const near = new Set([...focus, ...found]);
    const lit = (edge) => (hoveredEdge ? edge.id === hoveredEdge : focus.has(edge.from) || focus.has(edge.to));
    for (const edge of scene.edges) if (lit(edge)) near.add(edge.from).add(edge.to);
    const any = Boolean(near.size || hoveredEdge);
    const opacity = (edge) => (!any ? edge.opacity : lit(edge) ? Math.max(edge.opacity, 0.75) : FADED);
    write(edges, scene.edges.map((edge) => ({ ...edge, color: { color: edge.color.color, opacity: opacity(edge) } })));
    write(nodes, scene.nodes.map(({ x, y, ...node }) => ({
      ...node, margin: node.kind === "token" ? 5 : 9,
      ...styled(node, any && !near.has(node.id), selected.includes(node.id), theme, pinned.has(node.id)),
    })), places);
  }

  const shade = (i) => (i % 2 ? theme.PAPER : theme.BAND);

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
      ctx.fillStyle = theme.MUTED;
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
      ctx.fillStyle = theme.of(band.color);
      if (band.name) ctx.fillRect(left + 2, middle - 9, 3, 18);
      ctx.fillStyle = theme.MUTED;
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
      ctx.fillStyle = theme.MUTED;
      ctx.fillText(band.name, middle, top + 14);
      ctx.fillStyle = theme.of(band.color);
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

  const placeAt = (id) => place(network.canvasToDOM(network.getPosition(id)), (byId.get(id).size + 10) * network.getScale());

  function hover(node, edge, point) {
    if (node && !byId.has(node)) return;  // it is going
    hovered = node; hoveredEdge = edge;
    if (node) describe(byId.get(node));
    if (edge) describeEdge(edges.get(edge));
    if (node) placeAt(node);
    else if (edge) place(point, 12);
    else card.hidden = true;
    paint();
    hooks.hovered?.(node);
  }
  const leave = () => { if (hovered || hoveredEdge) hover("", ""); else card.hidden = true; };

  function select(ids) {  // one, several, or none
    const known = [ids].flat().filter((id) => byId.has(id));
    if (known.join() === selected.join()) return;
    selected = known;
    paint();
    marked();
  }

  function choose(ids) {  // by a user: the others are told
    select(ids);
    hooks.selected?.(selected);
  }

  // What the graph says to those who do not see it.
  function list() {
    options.replaceChildren();
    const [count, lines] = [scene.nodes.length, scene.edges.length];
    canvas.setAttribute("aria-label", `${scene.header.title}: ${count} nodes, ${lines} edges. Arrow keys walk along edges, Escape clears.`);
    scene.nodes.forEach((node, i) => {
      const option = element("div", "", `${nameOf(node)}, ${placeOf(node, scene)}`, options);
      option.setAttribute("role", "option");
      option.id = `${unique}-${i}`;
      option.dataset.node = node.id;
    });
    marked();
  }

  function marked() {
    const focus = selected.at(-1), node = byId.get(focus);
    for (const option of options.children) option.setAttribute("aria-selected", String(selected.includes(option.dataset.node)));
    const at = scene.nodes.findIndex(({ id }) => id === focus);
    if (at < 0) canvas.removeAttribute("aria-activedescendant");
    else canvas.setAttribute("aria-activedescendant", `${unique}-${at}`);
    heard.textContent = node ? [nameOf(node), placeOf(node, scene), numbersOf(node, scene)].filter(Boolean).join(", ") : "";
  }

  // Along the strongest edge, or to the next node of the table.
  function step(key) {
    const list = scene.nodes, id = selected.at(-1), at = list.findIndex((node) => node.id === id);
    if (at < 0) return list.at(-1)?.id;
    const [onwards, back, next, last] = scene.upwards
      ? ["ArrowUp", "ArrowDown", "ArrowRight", "ArrowLeft"] : ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"];
    if (key === next || key === last) return list.at((at + (key === next ? 1 : -1)) % list.length).id;
    const [here, there] = key === onwards ? ["from", "to"] : ["to", "from"];
    return scene.edges.findLast((edge) => edge[here] === id)?.[there] ?? id;
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key } = event;
    if (key.startsWith("Arrow")) {
      const id = step(key);
      if (!id) return;
      choose(event.shiftKey && hooks.several ? [...selected.filter((each) => each !== id), id] : [id]);
      describe(byId.get(id));
      placeAt(id);
    } else if (key === "Escape") { leave(); choose([]); }
    else if (!hooks.key?.(key.toLowerCase(), selected)) return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => { card.hidden = true; });
  canvas.addEventListener("mouseleave", leave);
  window.addEventListener("scroll", leave, { capture: true, passive: true });

  network.on("beforeDrawing", (ctx) => scene && bands(ctx));
  network.on("afterDrawing", (ctx) => scene && headings(ctx));
  network.on("hoverNode", ({ node }) => hover(node, ""));
  network.on("blurNode", () => hover("", ""));
  network.on("hoverEdge", ({ edge, pointer }) => !hovered && hover("", edge, pointer.DOM));
  network.on("blurEdge", () => !hovered && hover("", ""));
  network.on("click", ({ nodes: [id], event }) => {
    canvas.focus({ preventScroll: true });
    const added = hooks.several && event.srcEvent?.shiftKey;
    if (id && !byId.has(id)) return;
    if (added && id) choose(selected.includes(id) ? selected.filter((each) => each !== id) : [...selected, id]);
    else if (!added) choose(id ? [id] : []);
  });
  network.on("doubleClick", ({ nodes: [id] }) => id && byId.has(id) && hooks.renamed?.(id));
  network.on("dragStart", () => { card.hidden = true; touched = true; });
  network.on("zoom", () => { touched = true; });

  // The wheel scrolls the notebook; with ctrl or cmd it zooms.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  }, { capture: true });

  function button(text, hint, act) {
    const made = element("button", "", text, buttons);
    made.title = hint;
    made.setAttribute("aria-label", hint);
    made.type = "button";
    made.dataset.lmSuppressShortcuts = "true";
    made.addEventListener("click", act);
    return made;
  }
  const zoom = (factor) => { touched = true; network.moveTo({ scale: network.getScale() * factor }); };
  button("+", "zoom in", () => zoom(1.3));
  button("−", "zoom out", () => zoom(1 / 1.3));
  button("⤢", "fit", () => { touched = false; whole = true; fit(); });

  const observer = new ResizeObserver(() => { if (!touched) fit(); });
  observer.observe(root);
  const forget = onTheme(() => {
    theme = themeOf(root);
    scene = { ...scene, edges: shown.edges.map((edge) => completed(edge, shown, theme)) };
    fillFooter(legend, scene.header, theme);
    paint();
  });
  update(first);
  return {
    update, select, choose, button, network, canvas, fit,
    drawn: () => scene,
    selected: () => selected,
    seek(ids) { found = new Set(ids); paint(); },
    pin(ids) { pinned = new Set(ids); if (scene) paint(); },
    destroy() {
      cancelAnimationFrame(frame);
      window.removeEventListener("scroll", leave, { capture: true });
      forget();
      observer.disconnect();
      network.destroy();
    },
  };
}
