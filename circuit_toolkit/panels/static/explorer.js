// The explorer's screen: prompt and controls on top, graph, card, verdict. Python holds the state
// (panels/explorer/explorer.py) and sends it region by region; a user's acts go to it as messages.
// library.js, views/static/theme.js, graph.js and parts.js stand before it in one module.

const STEADY = ["strength", "size", "dial"];  // of these only the last one matters
const DIALS = [["off", "as it is"], ["ablate", "ablate"], ["scale", "scale"], ["set", "set to"]];
const FORMS = [["session", "session (all of it)"], ["html", "HTML page"], ["svg", "SVG"], ["png", "PNG"], ["json", "circuit as JSON"], ["neuronpedia", "Neuronpedia JSON"]];
const LETTERS = { p: "pin", g: "group", "/": "search" };

// A curve behind a slider, from left to right, 0 at the bottom.
function sparkline(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("ct-spark");
  if (values.length > 1) {
    const line = document.createElementNS(svg.namespaceURI, "polyline");
    line.setAttribute("points", values.map((y, i) => `${(100 * i / (values.length - 1)).toFixed(1)},${(19 - 18 * Math.max(0, Math.min(y, 1))).toFixed(1)}`).join(" "));
    svg.append(line);
  }
  return svg;
}

export default {
  async render({ model, el }) {
    const vis = await libraryFor(model, el);
    const { root, top, bar, centre, side, foot, listen, stop } = screenOf(el, model, {
      label: "Circuit explorer", card: "Selected node", regions: ["top", "bar", "centre", "side", "foot"],
    });
    const { ask, waiting, stop: hush } = asking(model, STEADY);
    stop.push(hush);
    let view, menu = "";

    // ---- the prompt ----
    const chips = made("div", { className: "ct-chips", tabIndex: 0, role: "button", "aria-label": "Prompt. Press Enter to edit.", title: "click to edit the prompt" });
    const typed = made("input", { className: "ct-typed", hidden: true, "aria-label": "Prompt", spellcheck: false });
    const edit = () => { typed.value = model.get("_top").text; typed.hidden = false; chips.hidden = true; typed.focus(); };
    const leave = () => { typed.hidden = true; chips.hidden = false; };
    chips.addEventListener("click", edit);
    chips.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); edit(); } });
    typed.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { const text = typed.value.trim(); leave(); chips.focus(); if (text && text !== model.get("_top").text) ask({ do: "prompt", text }); }
      if (event.key === "Escape") { leave(); chips.focus(); }
    });
    typed.addEventListener("blur", leave);
    const next = made("div", { className: "ct-next", "aria-label": "Likeliest next tokens" });
    const answers = ["answer", "wrong answer"].map((name) => made("input", { className: "ct-answer", "aria-label": name, title: `the ${name}`, spellcheck: false }));
    const value = made("b", { className: "ct-value" });
    const answered = () => { const words = answers.map((input) => input.value.trim()); if (words.every(Boolean) && words.join() !== model.get("_top").answers.join()) ask({ do: "answers", value: words }); };
    for (const input of answers) input.addEventListener("change", answered);
    const target = made("div", { className: "ct-target", title: "the target: what the circuit explains" }, "logit(", answers[0], ") − logit(", answers[1], ") = ", value);
    top.append(made("div", { className: "ct-prompt-row" }, chips, typed), made("div", { className: "ct-next-row" }, next, target));

    function paintTop() {
      const { chips: tokens, next: best, answers: words, value: number } = model.get("_top");
      chips.replaceChildren(...tokens.map(({ text, known }, at) => made("span", { className: known ? "ct-chip" : "ct-chip ct-unknown", data: { at }, title: known ? `token ${at}` : "the model does not know this word" }, text.replaceAll("\n", "↵") || "␣")));
      const most = best[0]?.p || 1;
      next.replaceChildren(...best.map(({ word, logit, p }) => {
        const item = made("span", { className: "ct-likely", title: `probability ${(100 * p).toFixed(1)} %, logit ${logit}` }, made("i", { style: { width: `${Math.max(2, 100 * p / most)}%` } }), made("span", {}, word.trim() || "␣"), made("small", {}, logit.toFixed(1)));
        return item;
      }));
      answers.forEach((input, i) => { input.value = words[i]; input.style.width = `${Math.max(words[i].length, 3) + 1.5}ch`; });
      value.textContent = `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(1)}`;
      value.className = `ct-value ${number < 0 ? "ct-lower" : "ct-raise"}`;
      shadeChips();
    }

    function shadeChips() {
      const { active } = model.get("_node"), peak = Math.max(...(active ?? [0]).map(Math.abs), 1e-9);
      for (const chip of chips.children) {
        const here = active?.[chip.dataset.at] ?? 0;
        chip.style.background = here ? `color-mix(in srgb, var(--ct-teal) ${Math.round(12 + 36 * Math.abs(here) / peak)}%, transparent)` : "";
        if (active) chip.title = `token ${chip.dataset.at}: activation ${plain(here)}`;
      }
    }

    // ---- the controls ----
    function slider(name, label, hint) {
      const range = made("input", { type: "range", "aria-label": label, min: 0, step: 1 }), curve = made("div", { className: "ct-curve" }), told = made("output", {});
      const box = made("label", { className: `ct-slider ct-of-${name}`, title: hint }, made("span", {}, label), made("div", { className: "ct-track" }, curve, range), told);
      return { range, curve, told, box };
    }
    const strength = slider("strength", "Strength", "Regularisation: to the right fewer edges");
    const size = slider("size", "Size", "Nodes that are drawn at most");
    const method = made("select", { "aria-label": "Method", title: "how the circuit is found" });
    const task = made("select", { "aria-label": "Prompts to learn from", title: "the prompts that a circuit is learnt from" });
    const scope = made("div", { className: "ct-scope", role: "group", "aria-label": "What is shown" });
    const find = button("Find the circuit of many prompts", "Learn it with CircuitLasso from many such prompts, and test it", () => ask({ do: "method", method: "randomised", task: task.value }), { className: "ct-primary" });
    const test = button("Test", "Test what is drawn by ablation in the running model", () => ask({ do: "test" }));
    const undo = button("↶", "undo", () => ask({ do: "undo" })), redo = button("↷", "redo", () => ask({ do: "redo" }));
    const more = button("Sites", "Which sites, and which tokens, a circuit is learnt at", () => open_("sites")), save = button("Save", "Save what is shown", () => open_("save"));
    const menus = made("div", { className: "ct-menu", hidden: true });
    const spread = made("span", { className: "ct-spread" });
    bar.append(task, method, find, strength.box, size.box, scope, spread, more, test, undo, redo, save, menus);
    method.addEventListener("change", () => ask({ do: "method", method: method.value, task: task.value }));
    task.addEventListener("change", () => {
      if (task.value === "+") { task.value = model.get("_controls").task; return form("pairs"); }
      if (model.get("_controls").method !== "graph") ask({ do: "method", method: method.value, task: task.value });
    });
    strength.range.addEventListener("input", () => {
      const { strengths } = model.get("_controls"), at = strengths[strength.range.value];
      strength.told.textContent = plain(at);
      ask({ do: "strength", value: at });
    });
    size.range.addEventListener("input", () => { size.told.textContent = size.range.value; ask({ do: "size", value: Number(size.range.value) }); });

    function paintControls() {
      const its = model.get("_controls"), graph = its.method === "graph" || its.method === "given";
      const methods = Object.entries(its.methods).concat(its.method === "given" ? [["given", "a circuit from Python"]] : []);
      method.replaceChildren(...methods.map(([name, words]) => made("option", { value: name, selected: name === its.method }, words)));
      const kept = its.tasks.includes(task.value) && graph && task.value ? task.value : its.task;
      task.replaceChildren(...[...its.tasks.map((name) => [name, name]), ["+", "paste pairs …"]].map(([name, words]) => made("option", { value: name, selected: name === kept }, words)));
      find.hidden = !graph;
      strength.box.hidden = graph;
      if (!graph) {
        strength.range.max = its.strengths.length - 1;
        if (document.activeElement !== strength.range || !waiting.strength) strength.range.value = nearest(its.strengths, its.strength);
        strength.told.textContent = plain(its.strength);
        strength.range.setAttribute("aria-valuetext", `${plain(its.strength)}, ${its.fit_name} ${its.fit[strength.range.value]}`);
        strength.box.title = `Regularisation: to the right fewer edges. The curve: ${its.fit_name}, here ${its.fit[strength.range.value]}.`;
        strength.curve.replaceChildren(sparkline(its.fit));
      }
      size.range.min = 5;
      size.range.max = 150;
      if (!waiting.size) size.range.value = its.size;
      size.told.textContent = its.size;
      size.curve.replaceChildren(sparkline(its.curve.slice(0, 150)));
      const here = its.curve[Math.min(its.size, its.curve.length) - 1];
      size.box.title = `Nodes that are drawn at most. The curve: ${its.curve_name}${here === undefined ? "" : `, here ${here}`}.`;
      size.range.setAttribute("aria-valuetext", `${its.size}, ${its.curve_name} ${here ?? ""}`);
      scope.hidden = graph;
      scope.replaceChildren(...[[false, "this prompt"], [true, "all prompts"]].map(([everywhere, words]) =>
        made("button", { type: "button", className: "ct-button", "aria-pressed": String(its.everywhere === everywhere), on: { click: () => ask({ do: "scope", value: everywhere }) } }, words)));
      more.hidden = its.method === "given";
      undo.disabled = !its.undo;
      redo.disabled = !its.redo;
      view?.pin(its.pinned);
      if (menu) fill(menu);
    }

    const nearest = (values, wanted) => values.reduce((best, each, i) => (Math.abs(each - wanted) < Math.abs(values[best] - wanted) ? i : best), 0);

    function open_(name) {
      menu = menu === name ? "" : name;
      menus.hidden = !menu;
      if (menu) { fill(menu); menus.querySelector("button, input, select")?.focus(); }
    }
    menus.addEventListener("keydown", (event) => { if (event.key === "Escape") { open_(menu); more.focus(); event.stopPropagation(); } });

    function fill(name) {
      const its = model.get("_controls");
      if (name === "save") {
        menus.replaceChildren(...FORMS.map(([form_, words]) => button(words, `save as ${words}`, () => { open_(name); ask({ do: "save", form: form_ }); })));
        return;
      }
      const focus = document.activeElement?.dataset?.site;
      const graph = its.method === "graph";
      const parts = [made("p", {}, graph ? `The graph reads ${its.graph_sites.join(", ")}. A circuit of many prompts is learnt at:` : "The circuit is learnt at:")];
      parts.push(made("div", { className: "ct-sites", role: "group", "aria-label": "Sites" }, ...its.sites.map(({ name: site, on }) =>
        made("button", { type: "button", className: "ct-button", "aria-pressed": String(on), data: { site }, on: { click: () => ask({ do: "sites", sites: its.sites.filter((each) => (each.name === site) !== each.on).map((each) => each.name) }) } }, site))));
      parts.push(made("label", {}, "at ", made("select", { "aria-label": "Tokens", on: { change: (event) => ask({ do: "positions", name: event.target.value }) } },
        ...its.positions.map(([words, on]) => made("option", { value: words, selected: on }, words === "last" ? "the last token" : words === "mean" ? "the mean of all tokens" : words)))));
      menus.replaceChildren(...parts);
      if (focus) menus.querySelector(`[data-site="${CSS.escape(focus)}"]`)?.focus();
    }

    // ---- the graph ----
    const stage = made("div", { className: "ct-stage" }), seek = made("input", { type: "search", className: "ct-seek", placeholder: "/ search", "aria-label": "Search nodes by name", title: "search nodes by name; Enter selects" });
    centre.append(stage, seek);
    const found = () => { const words = seek.value.trim().toLowerCase(); return words ? view.drawn().nodes.filter((node) => `${node.name} ${node.id}`.toLowerCase().includes(words)).map((node) => node.id) : []; };
    seek.addEventListener("input", () => view.seek(found()));
    seek.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { const ids = found(), at = ids.indexOf(view.selected().at(-1)); if (ids.length) choose([ids[(at + 1) % ids.length]]); }
      if (event.key === "Escape") { seek.value = ""; view.seek([]); view.canvas.focus(); }
    });

    function choose(ids) { view.select(ids); picked(ids); }
    function picked(ids) {
      paintNode(true);
      ask({ do: "select", ids });
      root.classList.toggle("ct-open", ids.length > 0);
    }
    const hooks = {
      bare: true, several: true, selected: picked,
      renamed: (id) => { choose([id]); form("name"); },
      key: (key, ids) => {
        const act = LETTERS[key];
        if (act === "search") seek.focus();
        else if (act === "pin" && ids.length) ask({ do: "pin", ids });
        else if (act === "group" && ids.length) form("group");
        return Boolean(act);
      },
    };

    function paintScene() {
      const scene = model.get("_scene");
      if (!scene.nodes) return;
      if (view) view.update(scene);
      else {
        view = drawCircuit(vis, stage, scene, hooks);
        stage.circuitView = view;
        view.pin(model.get("_controls").pinned ?? []);
      }
      view.select(model.get("_picked"));
      if (seek.value) view.seek(found());
      paintNode(true);
    }

    // ---- the card ----
    function row(edge, there) {
      const scene = view.drawn(), other = scene.nodes.find((node) => node.id === edge[there]);
      const status = { untested: "untested", confirmed: "confirmed", refuted: "refuted" }[edge.status];
      return made("button", { type: "button", className: `ct-link ct-is-${status}`, title: `${other.id}: ${status}`, on: { click: () => choose([other.id]) } },
        made("span", {}, nameOf(other)), made("small", {}, other.kind === "target" ? "" : siteOf(other, scene)), made("b", { className: edge.weight < 0 ? "ct-lower" : "ct-raise" }, signed(edge.weight)));
    }

    const words = made("div", { className: "ct-form" }), about = made("div", { className: "ct-about" }), dial = made("div", { className: "ct-dial" }), lists = made("div", { className: "ct-lists" }), html = made("div", { className: "ct-html" });
    side.append(words, about, dial, lists, html);

    function paintNode(quick) {
      const node = model.get("_node"), ids = view.selected(), last = ids.at(-1), scene = view.drawn();
      const current = node.ids?.join() === ids.join();
      if (!quick && current) shadeChips();
      const it = scene.nodes.find(({ id }) => id === last);
      if (!it) {
        about.replaceChildren(...hints());
        for (const part of [dial, lists, html]) part.replaceChildren();
        return;
      }
      const pinned = model.get("_controls").pinned?.includes(last), grouped = it.members;
      about.replaceChildren(
        made("h3", { title: "double click in the graph renames it" }, ids.length > 1 ? `${ids.length} nodes, last: ${nameOf(it)}` : nameOf(it)),
        made("p", { className: "ct-where" }, placeOf(it, scene)),
        made("p", { className: "ct-numbers" }, (current && node.note) || numbersOf(it, scene)),
        made("div", { className: "ct-acts" },
          button(pinned ? "Unpin" : "Pin", "P: mark these nodes", () => ask({ do: "pin", ids })),
          button("Rename", "give it a name of your own", () => form("name")),
          grouped ? button("Ungroup", "take the supernode apart", () => ask({ do: "ungroup", name: last })) : button("Group", "G: make one supernode of these nodes", () => form("group")),
          it.kind === "feature" ? button("Cluster", "Cluster its activating examples by circuit (CircuitLens): which heads and earlier features activate it", () => ask({ do: "analyse" })) : undefined,
          button("×", "Esc: close", () => choose([]), { className: "ct-shut" })),
        ...(grouped ? [made("ul", {}, ...it.members.map(([id, label]) => made("li", {}, label || id)))] : []));
      lists.replaceChildren(...edgesOf(it, scene).map(([title, there, edges]) =>
        made("section", {}, made("h4", {}, `${title} ${edges.length}`), ...edges.map((edge) => row(edge, there)))));
      if (current) {
        if (html.dataset.of !== last || !quick) { html.innerHTML = node.html ?? ""; html.dataset.of = node.html ? last : ""; }
        paintDial();
      } else {
        html.replaceChildren();
        dial.replaceChildren();
      }
    }

    function hints() {
      const { lines = [], legend = [] } = model.get("_foot");
      const keys = [["click", "select a node"], ["shift + click", "select several"], ["arrow keys", "walk along edges"], ["G", "group into a supernode"], ["P", "pin"], ["double click", "rename"], ["/", "search"], ["Esc", "clear"]];
      return [
        made("h3", {}, "Every node is a door"), made("p", { className: "ct-where" }, "Click one: what it is, what drives it, and what the model says without it."),
        ...(legend.length ? [made("h4", {}, "How to read a name"), made("dl", {}, ...legend.flatMap(([part, means]) => [made("dt", {}, part), made("dd", {}, means)]))] : []),
        made("h4", {}, "Edges"), made("p", { className: "ct-where" }, "Blue raises, orange with a tick lowers. Solid: tested and confirmed. Thin: untested. Dashed: refuted."),
        made("h4", {}, "Keys"), made("dl", {}, ...keys.flatMap(([key, means]) => [made("dt", {}, made("kbd", {}, key)), made("dd", {}, means)])),
        made("h4", {}, "This circuit"), ...lines.map((line) => made("p", { className: "ct-where" }, line)),
      ];
    }

    // ---- the dial ----
    let turned = "off", factor = 2, put = 0;
    function turn() { ask({ do: "dial", how: turned, value: turned === "scale" ? factor : turned === "set" ? put : 0 }); }
    function paintDial() {
      const { features = 0, active = [] } = model.get("_node");
      if (!features) { dial.replaceChildren(); return; }
      const effect = model.get("_effect");
      const head = made("div", { className: "ct-dials", role: "group", "aria-label": "What is done to the selected features" }, ...DIALS.map(([how, words]) =>
        made("button", { type: "button", className: "ct-button", "aria-pressed": String(turned === how), on: { click: () => { turned = how; turn(); paintDial(); } } }, words)));
      const parts = [made("h4", {}, `What if ${features === 1 ? "this feature" : `these ${features} features`} …`), head];
      if (turned === "scale") {
        const told = made("output", {}, `×${factor}`);
        parts.push(made("label", { className: "ct-slider" }, made("input", { type: "range", min: 0, max: 4, step: 0.25, value: factor, "aria-label": "times", on: { input: (event) => { factor = Number(event.target.value); told.textContent = `×${factor}`; turn(); } } }), told));
      }
      if (turned === "set") parts.push(made("label", {}, "to ", made("input", { type: "number", value: put, step: "any", "aria-label": "value", on: { change: (event) => { put = Number(event.target.value); turn(); } } }), made("small", {}, ` now at most ${plain(Math.max(...active, 0))}`)));
      if (turned !== "off" && effect.after) parts.push(...effectOf(effect));
      const focus = [...dial.querySelectorAll("input, button")].indexOf(document.activeElement);
      dial.replaceChildren(...parts);
      if (focus >= 0) dial.querySelectorAll("input, button")[focus]?.focus();
    }

    function effectOf({ before, after, target: [was, is], random }) {
      const spread_ = [was, is, 0, ...random], [low, high] = [Math.min(...spread_), Math.max(...spread_)], at = (x) => `${(100 * (x - low) / (high - low || 1)).toFixed(1)}%`;
      const band = random.length ? made("i", { className: "ct-random", style: { left: at(random[0]), width: `calc(${at(random.at(-1))} - ${at(random[0])} + 2px)` }, title: `${random.length} random sets: ${plain(random[0])} to ${plain(random.at(-1))}` }) : undefined;
      const words = `target ${plain(was)} → ${plain(is)}${random.length ? `; ${random.length} random sets of equal size: ${plain(random[0])} to ${plain(random.at(-1))}` : "; no others are active at these tokens"}`;
      const rows = after.map(({ word, logit }, i) => made("tr", {}, made("td", {}, before[i].word.trim()), made("td", {}, before[i].logit.toFixed(1)), made("td", {}, word.trim()), made("td", {}, logit.toFixed(1))));
      return [
        made("div", { className: "ct-scale", role: "img", "aria-label": words }, band, made("i", { className: "ct-zero", style: { left: at(0) } }), made("i", { className: "ct-was", style: { left: at(was) }, title: "before" }), made("i", { className: "ct-is", style: { left: at(is) }, title: "after" })),
        made("p", { className: "ct-where" }, words),
        made("table", {}, made("thead", {}, made("tr", {}, made("th", { colSpan: 2 }, "before"), made("th", { colSpan: 2 }, "after"))), made("tbody", {}, ...rows)),
        button("Let it write on", "Continue the prompt, as it is and under this change", () => ask({ do: "steer" })), made("div", { className: "ct-said" }),
      ];
    }

    // ---- small forms ----
    function form(what) {
      const ids = view.selected(), last = ids.at(-1);
      const shut = () => { words.replaceChildren(); view.canvas.focus(); };
      const input = what === "pairs"
        ? made("textarea", { rows: 5, "aria-label": "Prompt pairs", placeholder: "prompt | corrupted prompt | answer | wrong answer\none pair a line" })
        : made("input", { "aria-label": what === "name" ? "New name" : "Name of the supernode", value: what === "name" ? nameOf(view.drawn().nodes.find(({ id }) => id === last)) : "" });
      const send = () => {
        const text = input.value.trim();
        if (!text) return;
        shut();
        ask(what === "name" ? { do: "name", id: last, text } : what === "group" ? { do: "group", name: text, ids } : { do: "pairs", text });
      };
      input.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && what !== "pairs") send();
        if (event.key === "Escape") shut();
      });
      const title = { name: "Rename", group: `Group ${ids.length} nodes`, pairs: "Learn from your own prompt pairs" }[what];
      words.replaceChildren(made("h4", {}, title), input, made("div", { className: "ct-acts" }, button(what === "pairs" ? "Learn" : "OK", title, send, { className: "ct-primary" }), button("Cancel", "cancel", shut)));
      root.classList.add("ct-open");
      input.focus();
      input.select?.();
    }

    // ---- the verdict, and long work ----
    const verdict = made("span", { className: "ct-verdict" }), hint = made("span", { className: "ct-keys" }, "click a node · shift: several · arrows walk · / search"), drawer = button("Card", "show the card", () => root.classList.toggle("ct-open"), { className: "ct-drawer" });
    foot.append(verdict, hint, drawer);
    function paintFoot() {
      const { tone, words: said, lines = [] } = model.get("_foot");
      foot.className = `ct-foot ct-tone-${tone}`;
      verdict.textContent = said;
      verdict.title = lines.join("\n");
      if (view && !view.selected().length) about.replaceChildren(...hints());
    }

    const busy = longWork(root, model, [find, test, method, task, more, save, ...answers], (failed) => { paintControls(); if (failed) paintTop(); });
    stop.push(busy.stop);

    const hear = (message, buffers) => {
      if (message.file) {
        const link = made("a", { href: URL.createObjectURL(new Blob(buffers)), download: message.file });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      }
      if (message.said) {
        const [before, after] = message.said;
        dial.querySelector(".ct-said")?.replaceChildren(made("p", {}, made("b", {}, "as it is: "), before), made("p", {}, made("b", {}, "changed: "), after));
      }
    };
    model.on("msg:custom", hear);
    stop.push(() => model.off("msg:custom", hear));

    stop.push(narrowing(root));
    paintTop();
    paintControls();
    paintScene();
    paintFoot();
    busy.paint();
    listen({
      _top: paintTop, _controls: paintControls, _scene: paintScene, _node: () => paintNode(false), _effect: paintDial, _foot: paintFoot, _busy: busy.paint,
      _picked: () => { view.select(model.get("_picked")); paintNode(true); },
    });
    return () => {
      for (const each of stop) each();
      view?.destroy();
    };
  },
};
