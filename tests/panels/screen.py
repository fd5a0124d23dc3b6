"""A live widget in a page of Chromium, with Python behind it, as JupyterLab has it."""

import json
from queue import Empty, SimpleQueue

HOST = """<!doctype html>
<html><head><meta charset="utf-8"><style>
body { margin: 12px; background: BACKGROUND; color: INK; font-family: sans-serif; VARIABLES }
</style><style>CSS</style></head>
<body data-jp-theme-light="LIGHT"><div id="here"></div>
<script type="module">
const state = STATE, listeners = {}, unsaved = {};
const call = (name, ...args) => (listeners[name] ?? []).forEach((f) => f(...args));
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = unsaved[name] = value; call(`change:${name}`); },
  save_changes: () => {
    window.toPython(JSON.stringify({ saved: unsaved }));
    for (const name of Object.keys(unsaved)) delete unsaved[name];
  },
  send: (message) => window.toPython(JSON.stringify(message)),
  on: (event, f) => (listeners[event] ??= []).push(f),
  off: (event, f) => { listeners[event] = (listeners[event] ?? []).filter((g) => g !== f); },
};
Object.assign(window, { state, model, call, listeners });
const url = URL.createObjectURL(new Blob([SCRIPT], { type: "text/javascript" }));
const module = await import(url);
window.cleanup = await module.default.render({ model, el: document.getElementById("here") });
window.ready = true;
</script></body></html>
"""
# What JupyterLab's two themes say of the variables that are used.
LIGHT = {
    "--jp-layout-color0": "white",
    "--jp-layout-color1": "white",
    "--jp-layout-color2": "#eee",
    "--jp-border-color2": "#e0e0e0",
    "--jp-content-font-color1": "rgba(0, 0, 0, 0.87)",
}
DARK = {
    "--jp-layout-color0": "#111111",
    "--jp-layout-color1": "#212121",
    "--jp-layout-color2": "#424242",
    "--jp-border-color2": "#424242",
    "--jp-content-font-color1": "rgba(255, 255, 255, 1)",
}

# Texts with less contrast than 4.5, by the definition of WCAG 2.1; not those on a bar of plotly.
FAINT = """(root) => {
    const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const paint = (...colours) => {
        brush.clearRect(0, 0, 1, 1);
        for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
        return brush.getImageData(0, 0, 1, 1).data;
    };
    const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => {
        const part = rgb[i] / 255;
        return sum + share * (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (node) => {
        const found = [];
        for (let e = node; e; e = e.parentElement) {
            found.unshift(getComputedStyle(e).backgroundColor);
        }
        return found;
    };
    const low = [];
    for (const node of document.querySelectorAll(`${root} *`)) {
        const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
        const skipped = node.closest(":disabled, option, title, .ct-unseen, .bartext");
        if (!own || skipped || !node.checkVisibility()) continue;
        const drawn = node instanceof SVGElement, style = getComputedStyle(node);
        const back = behind(node), ink = drawn ? style.fill : style.color;
        const [a, b] = [light(paint(...back)), light(paint(...back, ink))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push([node.outerHTML.slice(0, 90), ratio.toFixed(2)]);
    }
    return low;
}"""


def faint(page, root=".ct-explorer"):
    """Texts that cannot be read, with their contrast."""
    return page.evaluate(FAINT, root)


def script_json(value):
    return json.dumps(value).replace("<", "\\u003c")


class Screen:
    """One widget on a page: what is clicked reaches Python, what Python says is drawn."""

    def __init__(self, page, widget, width=1100, height=860, dark=False):
        self.page, self.widget = page, widget
        self.errors, self.files = [], {}
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda told: self.errors.append(told.text))
        page.set_viewport_size({"width": width, "height": height})
        self._changes, self._asked = SimpleQueue(), SimpleQueue()
        if former := widget.__dict__.pop("shown_on", None):
            widget.unobserve(*former)
        self._names = [n for n in widget.traits(sync=True) if n not in ("_esm", "_css", "layout")]
        plain = {}
        for name in self._names:
            try:
                plain[name] = json.loads(json.dumps(getattr(widget, name)))
            except TypeError:
                continue
        self._names = list(plain)
        widget.shown_on = (lambda change: self._changes.put((change.name, change.new)), self._names)
        widget.observe(*widget.shown_on)
        widget.send = lambda content, buffers=None: self._changes.put(
            ("msg:custom", (content, buffers))
        )
        page.expose_function("toPython", lambda text: self._asked.put(json.loads(text)))
        variables = ";".join(f"{k}: {v}" for k, v in (DARK if dark else LIGHT).items())
        text = (
            HOST.replace("BACKGROUND", "#111" if dark else "#fff")
            .replace("INK", "#fff" if dark else "#000")
            .replace("VARIABLES", variables)
            .replace("LIGHT", "false" if dark else "true")
            .replace("CSS", widget._css)
            .replace("STATE", script_json(plain))
            .replace("SCRIPT", script_json(widget._esm))
        )
        page.set_content(text)
        self._pass_on(until="window.ready === true")
        self.settle()

    def _pass_on(self, until):
        for _ in range(400):
            if self.page.evaluate(until):
                return
            self._once()
        raise AssertionError(f"it never came to be: {until}; {self.errors}")

    def _once(self):
        """Give Python what the page asked for, and the page what Python changed."""
        self.page.wait_for_timeout(15)
        moved = False
        while True:
            try:
                asked = self._asked.get_nowait()
            except Empty:
                break
            moved = True
            for name, value in asked.get("saved", {}).items():
                setattr(self.widget, name, value)
            for heard in list(self.widget._msg_callbacks.callbacks):
                heard(self.widget, asked, None)
        if hasattr(self.widget, "wait"):
            self.widget.wait()
        while True:
            try:
                name, value = self._changes.get_nowait()
            except Empty:
                break
            moved = True
            if name == "msg:custom":
                content, buffers = value
                if "file" in content:
                    self.files[content["file"]] = bytes(buffers[0])
                    continue
                self.page.evaluate("([message]) => call('msg:custom', message, [])", [content])
            else:
                self.page.evaluate("([name, value]) => model.set(name, value)", [name, value])
        return moved

    def settle(self):
        """Wait until neither side has more to say."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self._once() else quiet + 1
        self.page.wait_for_timeout(220)  # what fades in has come

    def shot(self, path):
        self.page.screenshot(path=path)


def features_of(explorer):
    """Ids of the features that an explorer draws."""
    kinds = explorer.circuit.nodes["kind"].tolist()
    return [i for i, kind in zip(explorer.circuit.ids(), kinds, strict=True) if kind == "feature"]
