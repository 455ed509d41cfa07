"""The explorer in a browser: as Voila's page and in JupyterLab, on a machine that reaches nothing but itself.

Screenshots are left in outputs/screenshots, or where STKVLM_SCREENSHOTS says. STKVLM_PATIENCE: seconds to wait at most.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from run_folder import make_run
from serving import PATIENCE_S, end, free_port, own_environment, served

from stkvlm_lib.config import ROOT
from stkvlm_lib.explore.links import explorer_link
from stkvlm_lib.explore.page import NOTEBOOK
from stkvlm_lib.explore.state import NOTHING_LEFT
from stkvlm_lib.qa.label_check import MARKS_FILE, read_marks
from stkvlm_lib.qa.qa_sets import read_records

pytestmark = pytest.mark.browser
SCREENSHOTS = Path(os.environ.get("STKVLM_SCREENSHOTS") or ROOT / "outputs" / "screenshots")
PATIENCE = 1000 * PATIENCE_S
"""Milliseconds to wait for any one thing."""
WATCH_HEIGHT = """() => {
    window.heights = new Set();
    const picture = document.querySelector("img.stk-picture");
    const look = () => { window.heights.add(Math.round(picture.clientHeight)); requestAnimationFrame(look); };
    look();
}"""
"""Note the height of the picture in every frame that the browser draws."""
OFFERED = """([box, start]) => {
    const index = [...box.options].findIndex(option => option.text.replaceAll("\\u00a0", " ").startsWith(start));
    return index < 0 ? null : { index };
}"""
"""Which option of a box begins with a text."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("outputs") / "a-run")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return own_environment(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="module")
def voila(run, environment):
    """The address that `explore` prints."""
    with served(run, environment) as address:
        yield address


@pytest.fixture(scope="module")
def lab(run, environment, tmp_path_factory):
    """JupyterLab's address of notebook 06, made ready for the run."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(NOTEBOOK, 4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = parameters.source.replace('RUN_DIR = ""', f"RUN_DIR = {str(run)!r}")
    nbformat.write(notebook, folder / "06_explore.ipynb")
    port = free_port()
    options = ["--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    command = [sys.executable, "-m", "jupyterlab", *options, "--IdentityProvider.token=secret"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/lab/tree/06_explore.ipynb?token=secret"
    finally:
        server.kill()  # its kernel ends by itself; asked kindly, the server takes seconds over that
        end(server)


def wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port}")


class Tab:
    """A browser tab of its own, with what it complained of and what it asked other machines for.

    Nothing in it sleeps: every look at the page waits for a condition, for as long as a slow machine may need.
    """

    def __init__(self, page, width: int, height: int):
        self.context = page.context.browser.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(PATIENCE)
        self.complaints, self.elsewhere, self.dropped = [], [], []
        self.context.route(lambda url: not url.startswith(("http://127.0.0.1:", "data:", "blob:")), self._refuse)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("websocket", lambda socket: socket.on("close", lambda _: self.dropped.append(socket.url)))

    def _refuse(self, route) -> None:
        self.elsewhere.append(route.request.url)
        route.abort()

    def _listen(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    def open(self, address: str) -> None:
        self.page.goto(address)

    def ready(self) -> str:
        """Wait until the explorer hears keys and clicks; its picture (see `picture`)."""
        self.page.locator(".stk-explorer[data-ready]").wait_for()
        return self.picture()

    def shot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def explorer(self, selector: str = ""):
        return self.page.locator(f".stk-explorer {selector}".strip())

    def says(self, text: str) -> None:
        """Wait until the explorer shows a text."""
        self.explorer().get_by_text(text).locator("visible=true").first.wait_for()

    def choose(self, label: str, option: str) -> None:
        """Choose what begins with `option` in the visible box of that label, once it is offered."""
        box = self.explorer().get_by_label(label, exact=True).locator("visible=true").last
        found = self.page.wait_for_function(OFFERED, arg=[box.element_handle(), option])
        box.select_option(index=found.json_value()["index"])

    def picture(self) -> str:
        """Wait until the picture is decoded; what it is, and in words."""
        shown = self.explorer("img.stk-picture")
        shown.wait_for()
        self.page.wait_for_function(
            "picture => picture.complete && picture.naturalWidth > 900", arg=shown.element_handle()
        )
        return shown.get_attribute("src")

    def changed(self, before: str) -> str:
        """Wait until another picture is shown."""
        shown = self.explorer("img.stk-picture").element_handle()
        self.page.wait_for_function("([picture, before]) => picture.src !== before", arg=[shown, before])
        return self.picture()


@pytest.fixture
def tab(page, request):
    opened = Tab(page, *request.param)
    yield opened
    opened.shot(f"{request.node.originalname}-end")  # which tells most after a failure
    opened.context.close()


@pytest.mark.parametrize("tab", [(1280, 900)], indirect=True)
def test_the_page_of_a_run(tab, voila, run):
    tab.open(voila.replace("token=", "token=not"))
    assert not tab.explorer().count() and "token" in tab.page.content().lower(), "only with the token"
    tab.complaints.clear()

    tab.open(voila)
    before = tab.ready()
    tab.says("View 1 of 30")
    assert tab.page.title() == "Explorer · a-run"
    tab.page.wait_for_function("document.querySelector('img.stk-picture').alt.startsWith('Track ')")
    tab.shot("voila-questions")

    tab.page.evaluate(WATCH_HEIGHT)
    step_with_keys(tab, before)
    heights = tab.page.evaluate("[...window.heights]")
    assert len(heights) == 1 and heights[0] > 300, "the picture changes in place"
    go_back_and_forward(tab)
    move_in_the_table(tab)
    type_fast(tab)
    filter_and_clear(tab, run)
    tab.shot("voila-all")
    tab.choose("Order", "surest mistakes first")
    tab.explorer("table tbody tr").first.get_by_text("✗ wrong").wait_for()
    switch_the_overlay(tab)
    ask(tab)
    tab.shot("voila-ask")
    begin_and_cancel_a_map(tab)
    mark(tab, run, "seen in Voila")
    tab.shot("voila-labels")
    look_at_detections(tab)
    tab.shot("voila-detections")
    look_in_the_dark(tab)
    show_on_a_telephone(tab)
    assert tab.complaints == [] and tab.elsewhere == [] and tab.dropped == []


@pytest.mark.parametrize("tab", [(1280, 900)], indirect=True)
def test_a_link_opens_the_page_at_its_picture(tab, voila, run):
    record = read_records(run / "qa" / "valid.jsonl")[-1]
    link = explorer_link(record.image_file, record.question, port=int(re.search(r":(\d+)/", voila).group(1)))
    tab.open(voila)
    tab.ready()
    tab.open(link)  # the browser has the token by now
    tab.ready()
    tab.says(record.image_file)
    field = tab.explorer(".stk-question input")
    field.wait_for()  # the tab with the question is open, not the table
    tab.page.keyboard.press("/")
    tab.page.wait_for_function("field => field === document.activeElement", arg=field.element_handle())
    assert field.input_value() == record.question
    tab.shot("voila-link")

    tab.explorer("img.stk-picture").click()
    tab.page.keyboard.press("z")
    tab.page.locator(".stk-explorer.stk-large").wait_for()
    tab.page.keyboard.press("ArrowRight")
    tab.page.wait_for_function("file => !decodeURIComponent(location.search).includes(file)", arg=record.image_file)
    tab.shot("voila-large")
    address = tab.page.url
    tab.page.reload()
    tab.ready()
    tab.page.wait_for_function("() => location.search.includes('picture=')")
    assert tab.page.url == address and record.image_file not in tab.explorer(".stk-place").inner_text()

    tab.open(link.replace(record.image_file, "valid/nowhere.jpg"))
    tab.ready()
    tab.says("“valid/nowhere.jpg”: no such picture")
    assert tab.complaints == [] and tab.elsewhere == []


HOSTILE = "<img src=x onerror=ran=1><script>ran=1</script>$\\href{javascript:ran=1}{x}$"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A run whose karts, track, questions, labels, answers and name would all run something."""
    run = make_run(tmp_path_factory.mktemp("outputs") / "a<img src=x onerror=ran=1>", adapter=False)
    (run / "qa").joinpath("valid.jsonl").unlink()
    for info in (run.parent / f"{run.name}-frames" / "test").glob("*_info.json"):
        found = json.loads(info.read_text())
        info.write_text(json.dumps(found | {"track": HOSTILE, "karts": [HOSTILE, *found["karts"][1:]]}))
    for path, names in ((run / "qa" / "test.jsonl", ("question", "answer", "track")), (run / "predictions.jsonl", ())):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [
            row | {name: f"{HOSTILE}\x1b[31m" for name in names or ("question", "answer", "prediction")} for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    return run


@pytest.mark.parametrize("tab", [(1280, 900)], indirect=True)
def test_texts_of_the_data_run_nothing(tab, hostile_run, environment):
    with served(hostile_run, environment) as address:
        tab.open(f"{address}&question={quote(HOSTILE)}&picture=test/")
        tab.ready()
        for name in ("Questions", "Labels", "Detections", "Ask"):
            tab.explorer().get_by_role("tab", name=name).click()
        tab.explorer("button.stk-ask").click()
        tab.explorer(".stk-live .stk-error").wait_for()
        tab.shot("voila-hostile")
        assert tab.page.evaluate("window.ran") is None and tab.page.locator("img[src='x']").count() == 0
        assert tab.elsewhere == []


@pytest.mark.parametrize("tab", [(1280, 900)], indirect=True)
def test_a_kernel_that_died_is_told(tab, voila):
    tab.open(voila)
    tab.ready()
    kernel = tab.page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    tab.page.evaluate("id => fetch(`voila/api/shutdown/${id}`, { method: 'POST' })", kernel)
    tab.explorer(".stk-gone").get_by_text("Load the page again").wait_for()
    tab.shot("voila-gone")


@pytest.mark.parametrize("tab", [(1400, 1000)], indirect=True)
def test_the_notebook_in_jupyterlab(tab, lab, run):
    tab.open(lab)
    tab.page.locator(".jp-Notebook").wait_for()
    tab.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    tab.page.get_by_role("menuitem", name="Run", exact=True).click()
    tab.page.get_by_text("Run All Cells", exact=True).click()
    before = tab.ready()
    tab.explorer().evaluate("found => found.scrollIntoView()")
    tab.shot("lab-questions")

    tab.explorer("img.stk-picture").click()
    before = step_with_keys(tab, before)
    tab.explorer("img.stk-picture").click()  # out of the field, where R is a letter
    tab.page.keyboard.press("r")
    tab.changed(before)
    assert tab.page.locator(".jp-RawCell").count() == 0, "R is the explorer's here, not the notebook's"
    filter_and_clear(tab, run)
    switch_the_overlay(tab)
    ask(tab)
    tab.shot("lab-ask")
    mark(tab, run, "seen in JupyterLab")
    tab.shot("lab-labels")
    assert tab.elsewhere == []
    assert [c for c in tab.complaints if "/api/" not in c] == []


def step_with_keys(tab: Tab, before: str) -> str:
    tab.page.keyboard.press("ArrowRight")
    second = tab.changed(before)
    tab.says("View 2 of 30")
    tab.page.keyboard.press("ArrowLeft")
    first = tab.changed(second)
    tab.says("View 1 of 30")
    field = tab.explorer().get_by_label("Go to")
    field.fill("12")
    field.press("Enter")
    tab.says("View 12 of 30")
    return tab.changed(first)


def go_back_and_forward(tab: Tab) -> None:
    tab.page.keyboard.press("Escape")
    tab.explorer("img.stk-picture").click()
    shown = tab.explorer(".stk-place small").inner_text().split(" · ")[0]
    tab.page.wait_for_function("file => decodeURIComponent(location.search).includes(file)", arg=shown)
    address = tab.page.url
    tab.page.keyboard.press("ArrowRight")
    tab.says("View 13 of 30")
    tab.page.wait_for_function("before => location.href !== before", arg=address)  # which comes a little later
    tab.page.go_back()
    tab.says("View 12 of 30")
    tab.page.go_forward()
    tab.says("View 13 of 30")


def move_in_the_table(tab: Tab) -> None:
    """One stop of the Tab key; arrows go from row to row."""
    rows = tab.explorer(".stk-choose")
    assert tab.explorer(".stk-choose[tabindex='0']").count() == 1
    for _ in range(50):  # the table may yet be drawn anew for the picture that was gone to
        rows.first.focus()
        tab.page.keyboard.press("ArrowDown")
        if rows.nth(1).evaluate("row => row === document.activeElement && row.tabIndex === 0"):
            return
    raise AssertionError("the arrow does not go to the next row")


def type_fast(tab: Tab) -> None:
    """The text on the screen is asked, however soon Enter or a click follows it."""
    tab.explorer().get_by_role("tab", name="Ask").click()
    field = tab.explorer(".stk-question input")
    for question, send in (
        ("What kart is the ego car?", lambda: tab.page.keyboard.press("Enter")),
        ("How many karts are there in the scenario?", lambda: tab.explorer("button.stk-ask").click()),
    ):
        field.fill("")
        field.focus()
        tab.page.keyboard.type(question)
        send()
        tab.explorer(".stk-asked b").get_by_text(question, exact=True).wait_for()
    assert tab.explorer(".stk-live").first.get_attribute("aria-live") == "polite"
    tab.explorer().get_by_role("tab", name="Questions").click()


def look_in_the_dark(tab: Tab) -> None:
    for scheme, is_dark in (("dark", True), ("light", False)):
        tab.page.emulate_media(color_scheme=scheme)
        tab.shot(f"voila-{scheme}")
        looks = (
            "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor].map(c => c.match(/\\d+/g)[0] < 128)"
        )
        assert tab.page.locator("body").evaluate(looks) == [not is_dark, is_dark], "dark paper has bright ink"
        assert tab.page.locator("body").get_attribute("data-jp-theme-light") == str(not is_dark).lower()


def show_on_a_telephone(tab: Tab) -> None:
    for width, height in ((390, 844), (640, 450)):  # the second is a common screen at 200 %
        tab.page.set_viewport_size({"width": width, "height": height})
        tab.page.evaluate("scrollTo(0, 0)")
        tab.shot(f"voila-{width}")
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
        wider = tab.explorer(".stk-scroll").evaluate_all("all => all.some(one => one.scrollWidth > one.clientWidth)")
        assert not wider, "no table needs swiping"
        assert tab.explorer("img.stk-picture").bounding_box()["y"] < height / 2, "the picture comes before the filters"
    tab.explorer().get_by_role("button", name="Filters", exact=True).click()
    tab.explorer().get_by_label("Split").wait_for()


def filter_and_clear(tab: Tab, run: Path) -> None:
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    wrong = sum(not row["correct"] for row in rows)
    tab.choose("Answer", f"wrong ({wrong})")
    tab.says(f"{wrong} matching questions")
    tab.choose("Split", "valid (0)")
    tab.says(NOTHING_LEFT)
    tab.explorer("img.stk-picture").wait_for(state="hidden")
    tab.explorer().get_by_role("button", name="Reset filters").click()
    tab.says("View 1 of 30")
    tab.choose("Split", "all")
    tab.says("of 40")
    tab.picture()


def switch_the_overlay(tab: Tab) -> None:
    before = tab.picture()
    tab.explorer().get_by_label("Visible share").check()
    before = tab.changed(before)
    tab.page.keyboard.press("Escape")
    tab.explorer().get_by_label("Overlay").uncheck()
    before = tab.changed(before)
    zones = tab.explorer().get_by_label("Zones").element_handle()
    tab.page.wait_for_function("zones => zones.disabled", arg=zones)
    tab.explorer().get_by_label("Overlay").check()
    tab.changed(before)


def ask(tab: Tab) -> None:
    tab.explorer().get_by_role("tab", name="Questions").click()
    tab.explorer().get_by_role("button", name="What kart is the ego car?").first.click()
    tab.says("the label says")
    tab.says("The 18 answers of the kind “ego”, likeliest first.")
    tab.choose("Kind of question", "track")
    tab.says("the picture was encoded before")
    tab.page.keyboard.press("Escape")
    field = tab.explorer().get_by_label("Question", exact=True).locator("visible=true")
    field.fill("Who will win?")
    field.press("Enter")
    tab.explorer(".stk-asked").get_by_text("Who will win?", exact=True).wait_for()
    tab.choose("Kind of question", "ego")
    tab.says("the label says")


def begin_and_cancel_a_map(tab: Tab) -> None:
    """A fast machine may be done with the map before Cancel is pressed; then once more."""
    from playwright.sync_api import TimeoutError as TooLate

    begin, cancel, remove = (
        tab.explorer().get_by_role("button", name=name) for name in ("Which parts decide?", "Cancel", "Remove the map")
    )
    for _ in range(5):
        begin.click()
        cancel.or_(remove).locator("visible=true").wait_for()
        with suppress(TooLate):
            cancel.click(timeout=5_000)
            break
        remove.click()
    tab.says("Cancelled.")
    tab.explorer(".widget-hprogress").wait_for(state="hidden")
    begin.wait_for()


def mark(tab: Tab, run: Path, note: str) -> None:
    tab.explorer().get_by_role("tab", name="Labels").click()
    tab.says("The label says")
    tab.explorer().get_by_label("Note (if you like)").fill(note)
    tab.explorer().get_by_role("button", name="The label is wrong").click()
    tab.says(f"“{note}”")
    tab.says("of them wrong")
    assert (note, "wrong") in [(made.note, made.verdict) for made in read_marks(run / "qa" / MARKS_FILE)]


def look_at_detections(tab: Tab) -> None:
    tab.explorer().get_by_role("tab", name="Detections").click()
    tab.explorer("table").locator("visible=true").get_by_text("ego", exact=True).first.wait_for()
