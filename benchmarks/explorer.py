"""How fast the explorer is, and what it takes: its kernel by itself, then as a page that several people have open.

    python benchmarks/explorer.py [--run outputs/latest] [--adapter DIR] [--pages 8] [--rounds 12]

First what a kernel does for one event, without a browser. Then, with --pages, in Chromium: a page opened and loaded
again, the first answer and later ones, and steps of so many people at once, each a second or so after their last, until
the next picture is drawn; once more while one of them asks question after question. A step is to take under 300 ms.
Memory is what the server, its pages' kernels and the model take together (PSS). Without a run: the bundled frames and
their ten forms, and an adapter only with --adapter.
"""

import argparse
import asyncio
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
from playwright.async_api import Page, async_playwright

from stkvlm_lib.config import ROOT, ExplorerConfig
from stkvlm_lib.explore.run import explore_run

PATIENCE = 600_000
"""Milliseconds to wait for any one thing."""
QUESTIONS = ("What track is this?", "What kart is the ego car?", "How many karts are there in the scenario?")
STEP = """async () => {
    const picture = document.querySelector("img.stk-picture");
    const before = picture.src, begin = performance.now();
    const drawn = new Promise(done => {
        const isNew = () => picture.src !== before && picture.complete;
        const look = () => isNew() ? requestAnimationFrame(done) : setTimeout(look, 2);
        look();
    });
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    await drawn;
    return performance.now() - begin;
}"""
"""Press the key for the next picture; ms until it is drawn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="default: outputs/latest")
    parser.add_argument("--adapter", type=Path, help="default: the run's own")
    parser.add_argument("--steps", type=int, default=200, help="of the kernel by itself")
    parser.add_argument("--pages", type=int, default=8, help="0: the kernel alone")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each person")
    options = parser.parse_args()
    measure_kernel(options.run, options.steps)
    if options.pages:
        with served(options.run, options.adapter) as (address, server):
            asyncio.run(measure_pages(address, server, options.pages, options.rounds))


def measure_kernel(run: Path | None, steps: int) -> None:
    """One event at a time, until the last message to the browser is handed over."""
    begin = time.perf_counter()
    explorer = explore_run(ExplorerConfig(run_dir=str(run or "")))
    opened = time.perf_counter() - begin
    explorer.state.set_filters(split="")
    explorer.refresh()
    print(f"{explorer.state.n_questions:,} questions about {len(explorer.state):,} views; the kernel by itself:")
    print(f"{'opening':<22} {1000 * opened:7.0f} ms")
    tracks = explorer.state.options("track")
    repeat("step", steps, lambda _: explorer.buttons["next"].click())
    repeat("random", steps, lambda _: explorer.buttons["random"].click())
    repeat("overlay", steps, lambda n: setattr(explorer.overlay, "value", n % 2 == 1))
    repeat("filter", 40, lambda n: setattr(explorer.filters["track"], "value", tracks[n % len(tracks)]))


def repeat(name: str, times: int, event: Callable[[int], None]) -> None:
    took = []
    for number in range(times):
        begin = time.perf_counter()
        event(number)
        took.append(1000 * (time.perf_counter() - begin))
    report(name, took)


def report(name: str, took: list[float]) -> None:
    """Median, 95th percentile and slowest, in ms."""
    p95 = statistics.quantiles(took, n=20, method="inclusive")[-1]
    print(f"{name:<22} {statistics.median(took):7.0f} ms median {p95:7.0f} p95 {max(took):7.0f} slowest of {len(took)}")


@contextmanager
def served(run: Path | None, adapter: Path | None = None, *more: str) -> Iterator[tuple[str, psutil.Process]]:
    """(the address that `explore` prints, its process). more: further arguments."""
    command = [sys.executable, "-P", "-m", "stkvlm_lib", "explore"]
    named = [str(run.resolve())] if run else []
    named += ["--adapter", str(adapter)] if adapter else []
    server = subprocess.Popen([*command, *named, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = next(filter(None, (re.search(r"http\S+", line) for line in server.stdout)), None)
        if not address:
            raise SystemExit("the server has ended; its messages are above")
        yield address.group(), psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


async def measure_pages(address: str, server: psutil.Process, people: int, rounds: int) -> None:
    async with browser() as new_page:
        print(f"in a browser, the machine busy to {load()}:")
        print(f"{'server':<22} {memory(server):7.0f} MB before any page")
        pages = [await new_page()]
        opened = [await timed(open_page(pages[0], address)), await timed(open_page(pages[0], address))]
        print(f"{'opening, again':<22} {opened[0]:7.0f} ms {opened[1]:7.0f} ms")
        print(f"{'server and page':<22} {memory(server):7.0f} MB")
        pages += [await new_page() for _ in range(people - 1)]
        took = await timed(asyncio.gather(*(open_page(page, address) for page in pages[1:])))
        print(f"{f'{people - 1} more at once':<22} {took:7.0f} ms until the last is open")
        print(f"{f'with {people} pages':<22} {memory(server):7.0f} MB")
        report(f"step, {people} people", await walk(pages, rounds))
        if not await is_asked(pages[0]):
            return
        asking = asyncio.create_task(ask_on(pages[0]))
        report(f"step, {people - 1} and one asks", await walk(pages[1:], rounds))
        asking.cancel()
        print(f"{'with the model':<22} {memory(server):7.0f} MB")


@asynccontextmanager
async def browser():
    """A function that makes a page of a person of its own."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])

        async def new_page() -> Page:
            context = await chromium.new_context(viewport={"width": 1280, "height": 900})
            context.set_default_timeout(PATIENCE)
            return await context.new_page()

        yield new_page
        await chromium.close()


async def timed(work) -> float:
    """Milliseconds that it takes."""
    begin = time.perf_counter()
    await work
    return 1000 * (time.perf_counter() - begin)


async def open_page(page: Page, address: str) -> None:
    """Until keys are heard and the picture is drawn."""
    await page.goto(address)
    await page.locator(".stk-explorer[data-ready]").wait_for()
    await page.wait_for_function("document.querySelector('img.stk-picture').naturalWidth > 900")


async def walk(pages: list[Page], rounds: int) -> list[float]:
    """How long each step of each person takes, in ms."""

    async def steps(page: Page, seed: int) -> list[float]:
        pause, took = random.Random(seed), []
        for _ in range(rounds):
            await asyncio.sleep(pause.uniform(0.5, 1.5))
            took.append(await page.evaluate(STEP))
        return took

    return [ms for took in await asyncio.gather(*map(steps, pages, range(len(pages)))) for ms in took]


async def ask(page: Page, question: str) -> None:
    """Until the answer is there."""
    await page.get_by_role("tab", name="Ask").click()
    field = page.locator(".stk-question input")
    await field.fill(question)
    await field.press("Enter")
    shown = page.locator(".stk-asked b", has_text=question).or_(page.locator(".stk-live .stk-error"))
    await shown.first.wait_for()


async def is_asked(page: Page) -> bool:
    """Measure a first answer and later ones; whether there is a model at all."""
    first = await timed(ask(page, QUESTIONS[0]))
    if await page.locator(".stk-live .stk-error").count():
        print(await page.locator(".stk-live .stk-error").first.inner_text())
        return False
    print(f"{'first answer':<22} {first:7.0f} ms, the model loaded for it")
    report("answer", [await timed(ask(page, QUESTIONS[n % len(QUESTIONS)])) for n in range(1, 10)])
    return True


async def ask_on(page: Page) -> None:
    """Question after question, each about another picture."""
    while True:
        for question in QUESTIONS:
            await page.evaluate(STEP)
            await ask(page, question)


def memory(server: psutil.Process) -> float:
    """MB (10^6 bytes) of a process and all that it has started, what they share counted once."""
    return sum(process.memory_full_info().pss for process in (server, *server.children(recursive=True))) / 1e6


def load() -> str:
    """How many processes have wanted a core in the last minute."""
    return f"{psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores"


if __name__ == "__main__":
    main()
