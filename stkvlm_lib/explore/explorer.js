// Keys for the whole explorer, a click on a question, the picture's alternative text, and the page's own address.
const TYPING = "input, select, textarea, [contenteditable=true]";
const KEYS = { ArrowLeft: "previous", ArrowRight: "next", r: "random", o: "overlay", z: "large", "/": "ask" };

function render({ model, el }) {
  let root = null;
  let sent = model.get("done"); // how many actions the kernel was asked for
  let toAsk = false; // whether the field for questions is to be entered once it is on show
  const page = document.body.dataset.voila !== undefined; // the explorer is the whole page
  const stop = new AbortController();

  function act(content) {
    sent += 1;
    model.send(content);
  }

  function onKey(event) {
    const action = KEYS[event.key];
    const here = root.contains(event.target) || (page && event.target === document.body);
    if (!action || !here || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest(TYPING);
    if (field && field.type !== "checkbox") return;
    if (event.key.startsWith("Arrow") && event.target.closest("[role=tab]")) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // JupyterLab has meanings of its own for these keys
    if (event.repeat && model.get("done") < sent) return; // held down: no faster than pictures come
    toAsk = action === "ask";
    act({ action });
  }

  function onClick(event) {
    const chosen = event.target.closest(".stk-choose");
    if (chosen) act({ action: "choose", question: chosen.dataset.question });
    else if (!event.target.closest("button, a, label, [tabindex], " + TYPING)) root.focus({ preventScroll: true });
  }

  function onDone() {
    sent = Math.max(sent, model.get("done"));
    if (!toAsk) return;
    toAsk = false;
    requestAnimationFrame(() => root.querySelector(".stk-question input")?.select());
  }

  function showAlt() {
    const picture = root.querySelector("img.stk-picture");
    if (picture) picture.alt = model.get("alt");
  }

  function showAddress() {
    if (!page) return;
    const address = new URL(location.href);
    for (const name of ["picture", "question"]) address.searchParams.delete(name);
    const place = [address.searchParams.toString(), model.get("query")].filter(Boolean).join("&");
    history.replaceState(history.state, "", "?" + place); // so that the page comes back here when it is loaded again
  }

  const changes = { "change:alt": showAlt, "change:query": showAddress, "change:done": onDone };

  function attach() {
    if (stop.signal.aborted) return;
    root = el.closest(".stk-explorer");
    if (!root) return requestAnimationFrame(attach); // not in the page yet
    root.tabIndex = -1;
    window.addEventListener("keydown", onKey, { capture: true, signal: stop.signal });
    root.addEventListener("click", onClick, { signal: stop.signal });
    for (const [name, change] of Object.entries(changes)) model.on(name, change);
    showAlt();
    showAddress();
    root.dataset.ready = ""; // keys and clicks are heard from now on
  }

  attach();
  return () => {
    stop.abort();
    for (const [name, change] of Object.entries(changes)) model.off(name, change);
  };
}

export default { render };
