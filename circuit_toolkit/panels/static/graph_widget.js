// What anywidget calls: draws the circuit that Python sends, and sends back what is clicked.
// library.js, views/static/theme.js and graph.js stand before it in one module.

export default {
  async render({ model, el }) {
    let view;
    const vis = await libraryFor(model, el);
    const tell = (name, id) => {
      model.set(name, id);
      model.save_changes();
    };
    const hooks = { selected: (ids) => tell("selected", ids.at(-1) ?? ""), hovered: (id) => tell("hovered", id) };
    const redraw = () => {
      const scene = model.get("_scene");
      if (scene.nodes && view) return view.update(scene);
      view?.destroy();
      view = undefined;
      el.replaceChildren();
      const root = el.appendChild(document.createElement("div"));
      if (!scene.nodes) root.textContent = "No circuit yet.";
      else {
        view = drawCircuit(vis, root, scene, hooks);
        view.select(model.get("selected"));
      }
    };
    const select = () => view?.select(model.get("selected"));
    model.on("change:_scene", redraw);
    model.on("change:selected", select);
    redraw();
    return () => {
      model.off("change:_scene", redraw);
      model.off("change:selected", select);
      view?.destroy();
    };
  },
};
