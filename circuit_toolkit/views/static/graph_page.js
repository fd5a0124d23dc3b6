// The page's own part: what is known of the node that is chosen, keys that walk the graph, and
// pictures to save. views/static/graph.js stands before it.

function openPage(vis, root, panel, scene) {
  const view = drawCircuit(vis, root, scene, { selected: show });
  const { nodes } = scene;

  function choose(id) {
    view.select(id);
    show(id);
  }

  function show(id) {
    const { edges } = view.drawn(), node = nodes.find((each) => each.id === id);
    panel.hidden = !node;
    panel.replaceChildren();
    if (!node) return;
    const about = element("section", "ct-about", undefined, panel);
    element("h2", "ct-name", nameOf(node), about);
    if (!node.members) element("code", "", node.id, about);
    element("div", "ct-where", placeOf(node, scene), about);
    element("div", "ct-numbers", numbersOf(node, scene), about);
    if (scene.tokens && node.kind !== "target" && !node.members) prompt(node, about);
    for (const [name, label] of node.members ?? []) {
      const row = element("div", "ct-member", label, about);
      element("code", "", name, row);
    }
    for (const [words, there, found] of edgesOf(node, { edges })) {
      const list = element("section", "", undefined, panel);
      element("h3", "ct-part", `${words} ${found.length}${scene.left_out ? " that are drawn" : ""}`, list);
      for (const edge of found) {
        const other = nodes.find((each) => each.id === edge[there]);
        const row = element("button", "ct-line", undefined, list);
        row.type = "button";
        row.title = other.id;
        row.addEventListener("click", () => choose(other.id));
        element("span", "", nameOf(other), row);
        element("small", "", other.members || other.kind === "target" ? "" : siteOf(other, scene), row);
        element("b", "", signed(edge.weight), row).style.color = edge.color.color;
      }
    }
    const close = element("button", "ct-close", "×", panel);
    close.type = "button";
    close.title = "close";
    close.addEventListener("click", () => choose(""));
  }

  // The prompt, its words shaded by the feature's activation.
  function prompt(node, parent) {
    const text = element("p", "ct-prompt", undefined, parent);
    const peak = Math.max(...Object.values(node.active ?? {}).map(Math.abs), 1e-9);
    let here;
    scene.tokens.forEach((token, at) => {
      const word = element("span", String(at) === node.position ? "ct-here" : "", token.replaceAll("\n", "↵\n"), text);
      if (scene.spaced) text.append(" ");
      if (String(at) === node.position) here = word;
      const value = node.active?.[at];
      if (!value) return;
      const share = 0.1 + 0.65 * Math.min(Math.abs(value) / peak, 1);
      word.style.background = (value > 0 ? COLOURS.TEAL : COLOURS.NEGATIVE) + Math.round(255 * share).toString(16).padStart(2, "0");
      word.title = plain(value);
    });
    if (here) text.scrollTop = here.offsetTop - text.offsetTop - 30;
  }

  // Along the strongest edge, or to the next node of the table.
  function step(key) {
    const id = view.selected(), { edges } = view.drawn(), at = nodes.findIndex((node) => node.id === id);
    if (at < 0) return nodes.at(-1).id;
    const [onwards, back, next, last] = scene.upwards
      ? ["ArrowUp", "ArrowDown", "ArrowRight", "ArrowLeft"] : ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"];
    if (key === next || key === last) return nodes.at((at + (key === next ? 1 : -1)) % nodes.length).id;
    const [here, there] = key === onwards ? ["from", "to"] : ["to", "from"];
    return edges.findLast((edge) => edge[here] === id)?.[there] ?? id;
  }

  view.canvas.tabIndex = 0;
  view.canvas.setAttribute("aria-label", "The circuit. Arrow keys walk along its edges.");
  view.canvas.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") && event.key !== "Escape") return;
    event.preventDefault();
    choose(event.key === "Escape" ? "" : step(event.key));
  });

  // The still picture that Python drew, with its nodes where they were moved to.
  function picture() {
    const still = new DOMParser().parseFromString(scene.svg, "image/svg+xml"), svg = still.documentElement;
    const { width, height } = svg.viewBox.baseVal;
    const places = view.network.getPositions();
    svg.setAttribute("height", height);
    svg.removeAttribute("style");
    still.querySelectorAll("g.node").forEach((drawn, i) => {
      const { id, x, y } = nodes[i];
      if (places[id].x !== x || places[id].y !== y) drawn.setAttribute("transform", `translate(${places[id].x - x} ${places[id].y - y})`);
    });
    const moved = still.querySelector("g.node[transform]");
    if (moved) still.querySelectorAll("path.edge").forEach((drawn, i) => {
      const edge = view.drawn().edges[i];
      drawn.setAttribute("d", curve(places[edge.from], places[edge.to], edge));
    });
    const text = new XMLSerializer().serializeToString(still);
    return { width, height, file: new Blob([text], { type: "image/svg+xml" }) };
  }

  function curve(a, b, { aside }) {  // as in views/templates/circuit.svg
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    if (aside) return `M${a.x} ${a.y}Q${(a.x + b.x) / 2 + aside * dy} ${(a.y + b.y) / 2 - aside * dx} ${b.x} ${b.y}`;
    const [x, y] = scene.upwards ? [0, BEND * dy] : [BEND * dx, 0];
    return `M${a.x} ${a.y}C${a.x + x} ${a.y + y} ${b.x - x} ${b.y - y} ${b.x} ${b.y}`;
  }

  function save(file, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${scene.header.title.replace(/[^\p{L}\p{N}]+/gu, " ").trim().slice(0, 60) || "circuit"}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  view.button("SVG", "save as SVG", () => save(picture().file, "svg"));
  view.button("PNG", "save as PNG", () => {
    const { width, height, file } = picture(), image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas"), ctx = canvas.getContext("2d");
      [canvas.width, canvas.height] = [2 * width, 2 * height].map(Math.round);
      ctx.fillStyle = COLOURS.PAPER;
      ctx.fillRect(0, 0, canvas.width, canvas.height);
      ctx.drawImage(image, 0, 0, canvas.width, canvas.height);
      URL.revokeObjectURL(image.src);
      canvas.toBlob((made) => save(made, "png"));
    };
    image.src = URL.createObjectURL(file);
  });
  return view;
}
