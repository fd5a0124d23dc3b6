// What the panels share: elements, requests to Python, and the bar of long work.
// library.js, views/static/theme.js and graph.js stand before it in one module.

function made(tag, options = {}, ...children) {
  const { className = "", on = {}, data = {}, style = {}, ...rest } = options;
  const node = element(tag, className);
  for (const [name, value] of Object.entries(rest)) if (name in node && name !== "list") node[name] = value; else node.setAttribute(name, value);
  for (const [name, act] of Object.entries(on)) node.addEventListener(name, act);
  Object.assign(node.dataset, data);
  Object.assign(node.style, style);
  node.append(...children.filter((child) => child !== undefined));
  // JupyterLab asks the element in focus whether keys are its own, not what stands around it
  if (node.tabIndex >= 0) node.dataset.lmSuppressShortcuts = "true";
  return node;
}

const button = (text, hint, act, options = {}) =>
  made("button", { type: "button", title: hint, "aria-label": hint, on: { click: act }, ...options, className: `ct-button ${options.className ?? ""}` }, text);

// What a user does goes to Python as a message. Of those that are `steady` only the last one matters:
// it waits until what was asked before is done.
function asking(model, steady) {
  const waiting = {};
  let sent = model.get("_answered");
  const ask = (message) => {
    if (steady.includes(message.do) && sent > model.get("_answered")) { waiting[message.do] = message; return; }
    sent += 1;
    model.send(message);
  };
  const next = () => { for (const [name, message] of Object.entries(waiting)) { delete waiting[name]; ask(message); } };
  model.on("change:_answered", next);
  return { ask, waiting, stop: () => model.off("change:_answered", next) };
}

// A bar with a button to stop, and what went wrong; `held` take no clicks while something runs.
function longWork(root, model, held, after) {
  const progress = root.appendChild(made("div", { className: "ct-progress", hidden: true, role: "status" }));
  const hold = (on) => { for (const each of held) each.disabled = on; };
  let patience;
  function paint() {
    const { words, step, done, total, error } = model.get("_busy");
    clearTimeout(patience);
    if (error) {
      progress.hidden = false;
      progress.className = "ct-progress ct-failed";
      progress.replaceChildren(made("span", {}, error), button("×", "close", () => { progress.hidden = true; }));
    } else if (!words) {
      if (!progress.classList.contains("ct-failed")) progress.hidden = true;
    } else {
      const show = () => {
        progress.hidden = false;
        progress.className = "ct-progress";
        const share = total ? Math.min(done / total, 1) : 0;
        progress.replaceChildren(made("i", { className: "ct-done", style: { width: `${100 * share}%` } }), made("span", {}, `${words} …${step ? ` ${step} ${done} of ${total}` : ""}`), button("Stop", "stop; what was shown stays", () => model.send({ do: "stop" })));
        hold(true);
      };
      if (progress.hidden) patience = setTimeout(show, 150);
      else show();
      return;
    }
    hold(false);
    after(Boolean(error));
  }
  return { paint, stop: () => clearTimeout(patience) };
}

// Where there is little room the card is a drawer.
function narrowing(root) {
  const look = () => root.classList.toggle("ct-narrow", root.clientWidth < 900);
  const width = new ResizeObserver(look);
  width.observe(root);
  look();
  return () => width.disconnect();
}

// A panel of one screen: regions by name, listeners to what Python changes, and the end of both.
function screenOf(el, model, { kind = "", label, card, regions }) {
  const root = made("div", { className: `ct-explorer ${kind} ct-panel`, role: "region", "aria-label": label });
  el.append(root);
  const found = Object.fromEntries(regions.map((name) => [name, root.appendChild(made("div", { className: `ct-${name}` }))]));
  found.side.setAttribute("role", "region");
  found.side.setAttribute("aria-label", card);
  found.foot.setAttribute("role", "status");
  const stop = [];
  const listen = (acts) => {
    for (const [name, act] of Object.entries(acts)) {
      model.on(`change:${name}`, act);
      stop.push(() => model.off(`change:${name}`, act));
    }
  };
  return { root, ...found, listen, stop };
}
