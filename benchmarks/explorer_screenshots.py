"""Pictures of the explorer's page for the README: the questions of a view, and a question asked with its map.

    python benchmarks/explorer_screenshots.py [--run outputs/latest] [--out outputs/screenshots] [--picture FILE]

Needs Chromium and a run with an adapter. Without --picture it takes one of those with most answers: the one whose share
of right answers is nearest to that of all, so that it is neither a good nor a bad one.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from explorer import PATIENCE, find_chromium, served
from playwright.sync_api import Page, sync_playwright

from stkvlm_lib.config import ROOT
from stkvlm_lib.explore.run import read_answers

SIZE = {"width": 1200, "height": 900}
LIMIT = 150_000
"""Bytes of a picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "outputs" / "latest")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "screenshots")
    parser.add_argument("--picture", default="")
    options = parser.parse_args()
    picture = options.picture or typical_picture(options.run)
    options.out.mkdir(parents=True, exist_ok=True)
    with served(options.run, None, "--picture", picture) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        take(page, options.out)
        browser.close()


def typical_picture(run: Path) -> str:
    """See above; the first in the order of the files where several are equally near."""
    rows = defaultdict(list)
    for given in read_answers(run):
        rows[given.image_file].append(given.correct)
    most = sorted(map(len, rows.values()))[-len(rows) // 4]  # what a quarter of the pictures have at least
    everything = [right for answers in rows.values() for right in answers]
    share = sum(everything) / len(everything)
    full = [name for name, answers in rows.items() if len(answers) >= most]
    return min(full, key=lambda name: abs(sum(rows[name]) / len(rows[name]) - share))


def take(page: Page, folder: Path) -> None:
    """The view with its questions; then its first wrongly answered question, asked, with what decides the answer."""
    page.locator(".stk-explorer[data-ready]").wait_for()
    page.wait_for_function("document.querySelector('img.stk-picture').naturalWidth > 900")
    shoot(page, folder / "explorer.jpg")
    wrong = page.locator(".stk-table tr", has=page.locator(".stk-wrong")).locator(".stk-choose")
    (wrong if wrong.count() else page.locator(".stk-choose")).first.click()
    page.get_by_role("button", name="Which parts decide?").click()
    before = page.locator("img.stk-picture").get_attribute("src")
    page.get_by_role("button", name="Remove the map").wait_for()
    page.wait_for_function("before => document.querySelector('img.stk-picture').src !== before", arg=before)
    page.wait_for_function("document.querySelector('img.stk-picture').naturalWidth > 900")
    shoot(page, folder / "explorer_ask.jpg")


def shoot(page: Page, path: Path) -> None:
    """As fine as LIMIT allows."""
    for quality in range(90, 30, -5):
        page.screenshot(path=path, type="jpeg", quality=quality)
        if path.stat().st_size <= LIMIT:
            break
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
