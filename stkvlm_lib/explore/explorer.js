// Keys for the whole explorer, clicks on questions, the picture's alternative text, the page's own address and history,
// files to save, and a word when nothing answers any more.
const TYPING = "input, select, textarea, [contenteditable=true]";
const KEYS = { ArrowLeft: "previous", ArrowRight: "next", r: "random", o: "overlay", z: "large", "/": "ask" };
const ROWS = { ArrowUp: -1, ArrowDown: 1 };
const LOOK_EVERY = 5000; // ms between two looks whether the kernel is there
const MOST_SENT = 8_000_001; // bytes of a file; the kernel refuses one of so many
const STOPPED = "The explorer has been stopped. Start it again with ./run_all.sh explore and open the address it prints.";
const ENDED = "What works behind this page has ended, so nothing here answers. Load the page again; marks are kept.";

function render({ model, el }) {
  let root = null;
  let sent = model.get("done"); // how many actions the kernel was asked for
  let toAsk = false; // whether the field for questions is to be entered once it is on show
  let settled = false; // whether another picture is a step of the history, and not where it begins or was gone back to
  const page = document.body.dataset.voila !== undefined; // the explorer is the whole page
  const stop = new AbortController();

  function act(content) {
    sent += 1;
    model.send(content);
  }

  function swallow(event) {
    event.preventDefault();
    event.stopImmediatePropagation(); // JupyterLab has meanings of its own for these keys
  }

  const questionField = () => root.querySelector(".stk-question input");

  // The text goes with the event: the field's own updates are queued, and Enter would overtake them.
  function submit() {
    act({ action: "submit", question: questionField().value });
  }

  function onKey(event) {
    const here = root.contains(event.target) || (page && event.target === document.body);
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && event.target === questionField() && !event.isComposing) {
      swallow(event);
      return submit();
    }
    if (event.key in ROWS && event.target.matches(".stk-choose")) {
      swallow(event);
      return enterRow(event.target, ROWS[event.key]);
    }
    const action = KEYS[event.key];
    const field = event.target.closest(TYPING);
    if (!action || (field && field.type !== "checkbox")) return;
    if (event.key.startsWith("Arrow") && event.target.closest("[role=tab]")) return;
    swallow(event);
    if (event.repeat && model.get("done") < sent) return; // held down: no faster than pictures come
    toAsk = action === "ask";
    act({ action });
  }

  // The table of questions is one stop of the Tab key, the row that was entered last.
  function enterRow(from, step) {
    const rows = [...from.closest("table").querySelectorAll(".stk-choose")];
    const to = rows[rows.indexOf(from) + step];
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  function onClick(event) {
    const chosen = event.target.closest(".stk-choose");
    if (chosen) act({ action: "choose", question: chosen.dataset.question });
    else if (event.target.closest(".stk-ask")) submit();
    else if (event.target.closest(".stk-own")) chooseFile();
    else if (!event.target.closest("button, a, label, [tabindex], " + TYPING)) root.focus({ preventScroll: true });
  }

  function onDone() {
    sent = Math.max(sent, model.get("done"));
    settled = true;
    if (!toAsk) return;
    toAsk = false;
    requestAnimationFrame(() => questionField()?.select());
  }

  function showAlt() {
    const picture = root.querySelector("img.stk-picture");
    if (picture) picture.alt = model.get("alt");
  }

  // The page comes back here when it is loaded again, and goes back to the pictures before.
  function showAddress() {
    if (!page) return;
    const address = new URL(location.href);
    const before = address.searchParams.get("picture");
    for (const name of ["picture", "question"]) address.searchParams.delete(name);
    const place = [address.searchParams.toString(), model.get("query")].filter(Boolean).join("&");
    const same = new URLSearchParams(model.get("query")).get("picture") === before;
    if (settled && !same) history.pushState(null, "", "?" + place);
    else history.replaceState(history.state, "", "?" + place);
    settled = true;
  }

  function onHistory() {
    const asked = new URL(location.href).searchParams;
    settled = false;
    act({ action: "open", picture: asked.get("picture") ?? "", question: asked.get("question") ?? "" });
  }

  function chooseFile() {
    const input = document.createElement("input");
    input.type = "file";
    input.accept = "image/*";
    input.addEventListener("change", () => sendFile(input.files[0]));
    input.click();
  }

  async function sendFile(file) {
    if (!file) return;
    const content = await file.slice(0, MOST_SENT).arrayBuffer();
    sent += 1;
    model.send({ action: "own", name: file.name }, undefined, [content]);
  }

  function onDrop(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page for the file
    if (event.type === "drop") sendFile(event.dataTransfer.files[0]);
  }

  function save(content, buffers) {
    if (!content.file) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]], { type: "application/x-ndjson" }));
    link.download = content.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async function look() {
    const { baseUrl, kernelId } = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    let gone = "";
    try {
      const found = await fetch(`${baseUrl}api/kernels/${kernelId}`, { signal: stop.signal, redirect: "manual" });
      if (!found.ok) gone = ENDED;
    } catch {
      gone = STOPPED;
    }
    if (!stop.signal.aborted) tell(gone);
  }

  function tell(text) {
    let said = root.querySelector(".stk-gone");
    if (!said) {
      said = document.createElement("p");
      said.className = "stk-gone";
      said.setAttribute("role", "alert");
      root.prepend(said);
    }
    if (said.textContent !== text) said.textContent = text;
  }

  const changes = { "change:alt": showAlt, "change:query": showAddress, "change:done": onDone, "msg:custom": save };

  function attach() {
    if (stop.signal.aborted) return;
    root = el.closest(".stk-explorer");
    if (!root) return requestAnimationFrame(attach); // not in the page yet
    root.tabIndex = -1;
    window.addEventListener("keydown", onKey, { capture: true, signal: stop.signal });
    root.addEventListener("click", onClick, { signal: stop.signal });
    for (const name of ["dragover", "drop"]) root.addEventListener(name, onDrop, { signal: stop.signal });
    for (const said of root.querySelectorAll(".stk-live")) said.setAttribute("aria-live", "polite");
    for (const [name, change] of Object.entries(changes)) model.on(name, change);
    showAlt();
    showAddress();
    if (page) {
      window.addEventListener("popstate", onHistory, { signal: stop.signal });
      const looking = setInterval(look, LOOK_EVERY);
      stop.signal.addEventListener("abort", () => clearInterval(looking));
    }
    root.dataset.ready = ""; // keys and clicks are heard from now on
  }

  attach();
  return () => {
    stop.abort();
    for (const [name, change] of Object.entries(changes)) model.off(name, change);
  };
}

export default { render };
