// Keys for the whole explorer, a click on a question, and the picture's alternative text.
const TYPING = "input, select, textarea, [contenteditable=true]";
const KEYS = { ArrowLeft: "previous", ArrowRight: "next", r: "random", o: "overlay", "/": "ask" };

function render({ model, el }) {
  let root = null;
  const stop = new AbortController();

  function onKey(event) {
    const action = KEYS[event.key];
    const here = root.contains(event.target) || (document.body.dataset.voila && event.target === document.body);
    if (!action || !here || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest(TYPING) || (event.key.startsWith("Arrow") && event.target.closest("[role=tab]"))) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // JupyterLab has meanings of its own for these keys
    model.send({ action });
  }

  function onClick(event) {
    const chosen = event.target.closest(".stk-choose");
    if (chosen) model.send({ action: "choose", question: chosen.dataset.question });
    else if (!event.target.closest("button, a, label, [tabindex], " + TYPING)) root.focus({ preventScroll: true });
  }

  function showAlt() {
    const picture = root?.querySelector("img.stk-picture");
    if (picture) picture.alt = model.get("alt");
  }

  function attach() {
    if (stop.signal.aborted) return;
    root = el.closest(".stk-explorer");
    if (!root) return requestAnimationFrame(attach); // not in the page yet
    root.tabIndex = -1;
    window.addEventListener("keydown", onKey, { capture: true, signal: stop.signal });
    root.addEventListener("click", onClick, { signal: stop.signal });
    model.on("change:alt", showAlt);
    showAlt();
  }

  attach();
  return () => {
    stop.abort();
    model.off("change:alt", showAlt);
  };
}

export default { render };
