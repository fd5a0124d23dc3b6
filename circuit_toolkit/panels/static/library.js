// vis-network, asked of Python once a page: no widget carries it, and no notebook stores it.

async function libraryFor(model, el) {
  if (!globalThis.circuitToolkitVis) {
    const patience = setTimeout(() => { el.textContent = "There is no kernel: run the cell again for the live panel."; }, 5000);
    const code = await new Promise((done) => {
      const hear = (message) => {
        if (message.library === undefined) return;
        model.off("msg:custom", hear);
        done(message.library);
      };
      model.on("msg:custom", hear);
      model.send({ ask: "library" });
    });
    clearTimeout(patience);
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    globalThis.circuitToolkitVis ??= (await import(url)).default;
    URL.revokeObjectURL(url);
  }
  el.replaceChildren();
  el.classList.add("ct-live");
  for (const still of document.querySelectorAll(`[data-ct-still="${model.get("_still")}"]`)) still.hidden = true;
  return globalThis.circuitToolkitVis;
}
