// The panel of heads: controls, the map of scores, the circuit, what the selected heads do, and the
// verdict. Python holds the state (panels/heads.py); library.js, views/static/theme.js, graph.js,
// parts.js and head_view.js stand before it in one module.

export default {
  async render({ model, el }) {
    const vis = await libraryFor(model, el);
    const { root, bar, left, centre, side, foot, listen, stop } = screenOf(el, model, {
      kind: "ct-heads", label: "Attention heads", card: "Selected heads", regions: ["bar", "left", "centre", "side", "foot"],
    });
    const { ask, waiting, stop: hush } = asking(model, ["threshold", "select"]);
    stop.push(hush);
    let view;

    // ---- the controls ----
    const select = (label, hint, act) => made("select", { "aria-label": label, title: hint, on: { change: (event) => act(event.target.value) } });
    const task = select("Task", "the prompts that heads are scored on", (value) => ask({ do: "task", value }));
    const by = select("Score by", "how heads are scored; what was not scored yet is scored when it is chosen", (value) => ask({ do: "by", value }));
    const range = made("input", { type: "range", "aria-label": "Threshold", min: 0, max: 1, step: 0.01 });
    const told = made("output", {}), kept = made("small", { className: "ct-kept" });
    const threshold = made("label", { className: "ct-slider", title: "the circuit has the heads whose score is at least this share of the highest" }, made("span", {}, "Threshold"), range, told, kept);
    range.addEventListener("input", () => { told.textContent = Number(range.value).toFixed(2); ask({ do: "threshold", value: Number(range.value) }); });
    const find = button("Find paths", "Patch every path between the heads of the circuit, and from each to the answer", () => ask({ do: "paths" }));
    const test = button("Test", "Give the heads, all others, random sets, and every path their corrupted outputs", () => ask({ do: "test" }), { className: "ct-primary" });
    const compare = button("Compare ways", "Score the heads in every way, and hold each against known heads and chance", () => ask({ do: "compare" }));
    const codes = button("Codes", "Settings of head codes", () => { menu.hidden = !menu.hidden; if (!menu.hidden) sizes[0].focus(); });
    const sizes = [["Prompts to train on", "n_train"], ["Codes", "n_features"]].map(([label, name]) => made("input", { type: "number", min: 1, "aria-label": label, data: { name } }));
    const train = button("Train the codes", "Train the autoencoder of head codes with these settings", () => {
      menu.hidden = true;
      ask({ do: "train", ...Object.fromEntries(sizes.map((input) => [input.dataset.name, Number(input.value)])) });
    });
    const menu = made("div", { className: "ct-menu", hidden: true }, ...sizes.map((input) => made("label", {}, `${input.getAttribute("aria-label")} `, input)), train);
    menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.hidden = true; codes.focus(); event.stopPropagation(); } });
    bar.append(task, by, threshold, made("span", { className: "ct-spread" }), compare, codes, find, test, menu);

    const options = (box, pairs, chosen) => box.replaceChildren(...pairs.map(([value, words]) => made("option", { value, selected: value === chosen }, words)));
    function paintControls() {
      const its = model.get("_controls");
      if (!its.tasks) return;
      options(task, its.tasks.map((name) => [name, name]), its.task);
      options(by, its.ways.map(([way, title, scored]) => [way, scored ? title : `${title} – not scored yet`]), its.by);
      options(prompt, its.prompts.map((text, i) => [i, text]), its.prompt);
      prompt.title = its.prompts[its.prompt];
      if (!waiting.threshold) { range.value = its.threshold; told.textContent = its.threshold.toFixed(2); }
      kept.textContent = `${its.kept} of ${its.total} heads`;
      compare.disabled = its.ways.every(([, , scored]) => scored);
      for (const input of sizes) input.value = its[input.dataset.name];
      about.textContent = its.said;
    }

    // ---- the map ----
    const map = left.appendChild(made("div", { className: "ct-head-map", role: "grid", "aria-multiselectable": "true" }));
    const said = left.appendChild(made("div", { className: "ct-head-said", "aria-live": "polite" }));
    left.append(made("div", { className: "ct-head-said" }, "Click a head, or press Enter on it; with Shift several; Esc none."));
    const about = left.appendChild(made("div", { className: "ct-head-said ct-task" }));
    const ways = left.appendChild(made("div", { className: "ct-ways" }));
    function choose(at, several) {
      const now = model.get("_picked"), there = at && now.some((each) => same(each, at));
      const rest = several && at ? now.filter((each) => !same(each, at)) : [];
      pick(!at || (there && (several || now.length === 1)) ? rest : [...rest, at]);
    }
    function pick(heads) {
      model.set("_picked", heads);
      root.classList.toggle("ct-open", heads.length > 0);
      ask({ do: "select", heads });
    }
    const paintMap = () => drawMap(map, said, model.get("_map"), model.get("_picked"), choose);

    // ---- the circuit ----
    const stage = centre.appendChild(made("div", { className: "ct-stage" }));
    const headOf = (name) => name.match(/^a(\d+)\.h(\d+)$/)?.slice(1).map(Number);
    const idsOf = (heads) => view.drawn().nodes.filter(({ name }) => heads.some((at) => name === `a${at[0]}.h${at[1]}`)).map(({ id }) => id);
    const hooks = {
      bare: true, several: true,
      selected: (ids) => pick(view.drawn().nodes.filter(({ id }) => ids.includes(id)).map(({ name }) => headOf(name)).filter(Boolean)),
    };
    function paintScene() {
      const scene = model.get("_scene");
      if (!scene.nodes) return;
      if (view) view.update(scene);
      else {
        view = drawCircuit(vis, stage, scene, hooks);
        stage.circuitView = view;
      }
      view.select(idsOf(model.get("_picked")));
    }

    // ---- what the selected heads do ----
    const prompt = select("Prompt", "the prompt on which it is shown where heads look", (value) => ask({ do: "prompt", value: Number(value) }));
    const [title, effect, patterns, ranks, table] = ["ct-names", "ct-effect", "ct-patterns", "ct-ranks", "ct-codes"].map((name) => made(name === "ct-names" ? "h3" : "div", { className: name }));
    side.append(button("×", "close", () => root.classList.remove("ct-open"), { className: "ct-shut" }), title, effect, prompt, patterns, ranks, table);
    const paintPatterns = () => drawPatterns(patterns, model.get("_patterns"));
    function paintAbout() {
      const { names = [], effect: lost, ranks: its = "", codes: seen = "", ways: held = "" } = model.get("_about");
      title.textContent = names.length ? names.join(", ") : "No head is selected";
      prompt.hidden = !names.length;
      if (names.length && lost === undefined) effect.textContent = "What the task loses without them is being measured …";
      else effect.innerHTML = lost ?? "Click heads of the map or of the circuit: where they look, and what the task loses without them.";
      ranks.innerHTML = its;
      table.innerHTML = seen;
      ways.innerHTML = held;
    }

    // ---- the verdict ----
    const verdict = made("span", { className: "ct-verdict" }), note = made("span", { className: "ct-aside" });
    const drawer = button("Heads", "show what the selected heads do", () => root.classList.toggle("ct-open"), { className: "ct-drawer" });
    foot.append(verdict, note, drawer);
    function paintFoot() {
      const { tone, words = "", lines = [], note: more = "" } = model.get("_foot");
      foot.className = `ct-foot ct-tone-${tone}`;
      verdict.textContent = words;
      verdict.title = lines.join("\n");
      note.textContent = note.title = more;
    }

    const busy = longWork(root, model, [task, by, find, test, compare, codes, prompt], paintControls);
    stop.push(busy.stop, narrowing(root));
    for (const paint of [paintControls, paintMap, paintScene, paintPatterns, paintAbout, paintFoot, busy.paint]) paint();
    listen({
      _controls: paintControls, _map: paintMap, _scene: paintScene, _patterns: paintPatterns, _about: paintAbout, _foot: paintFoot, _busy: busy.paint,
      _picked: () => { paintMap(); view?.select(idsOf(model.get("_picked"))); },
    });
    return () => {
      for (const each of stop) each();
      view?.destroy();
    };
  },
};
