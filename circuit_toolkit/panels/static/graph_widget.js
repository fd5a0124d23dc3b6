// What anywidget calls: draws the circuit that Python sends, and sends back what is clicked.
// vis-network and views/static/graph.js stand before it in one module.

export default {
  render({ model, el }) {
    let view;
    const hooks = Object.fromEntries(["selected", "hovered"].map((name) => [name, (id) => {
      model.set(name, id);
      model.save_changes();
    }]));
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
