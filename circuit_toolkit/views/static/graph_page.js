// The page's own part: what is known of the node that is chosen, and pictures to save.
// views/static/theme.js and graph.js stand before it.

function openPage(vis, root, panel, scene) {
  const view = drawCircuit(vis, root, scene, { selected: ([id]) => show(id) });
  const { nodes } = scene, theme = themeOf(root), choose = (id) => view.choose([id]);

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
    close.addEventListener("click", () => view.choose([]));
  }

  // The prompt, its words shaded by the feature's activation.
  function prompt(node, parent) {
    const text = element("p", "ct-prompt", undefined, parent);
    const peak = Math.max(...Object.values(node.active ?? {}).map(Math.abs), 1e-9);
    let here;
    scene.tokens.forEach((token, at) => {
      const word = element("span", at === node.at ? "ct-here" : "", token.replaceAll("\n", "↵\n"), text);
      if (scene.spaced) text.append(" ");
      if (at === node.at) here = word;
      const value = node.active?.[at];
      if (!value) return;
      const share = 0.1 + 0.65 * Math.min(Math.abs(value) / peak, 1);
      word.style.background = (value > 0 ? theme.TEAL : theme.NEGATIVE) + Math.round(255 * share).toString(16).padStart(2, "0");
      word.title = plain(value);
    });
    if (here) text.scrollTop = here.offsetTop - text.offsetTop - 30;
  }

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
    const lowering = view.drawn().edges.filter((edge) => edge.weight < 0);
    if (moved) still.querySelectorAll("path.tick").forEach((drawn, i) => {
      drawn.setAttribute("d", tick(places[lowering[i].from], places[lowering[i].to], lowering[i]));
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

  function tick(a, b, { aside = 0 }) {  // likewise: 8 px across the middle
    const [dx, dy] = [b.x - a.x, b.y - a.y], flat = (along) => (aside || !along ? 1 : 1 - BEND);
    const [tx, ty] = [dx * flat(!scene.upwards), dy * flat(scene.upwards)], long = Math.max(Math.hypot(tx, ty), 1) / 4;
    const [x, y] = [(a.x + b.x + aside * dy) / 2, (a.y + b.y - aside * dx) / 2];
    return `M${x - ty / long} ${y + tx / long}L${x + ty / long} ${y - tx / long}`;
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
