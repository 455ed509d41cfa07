"""What all tests share: no hub, markers that skip with a reason, and one run of the whole smoke profile."""

import functools
import os
import shutil
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["STKVLM_FEATURES"] = "0"  # tests leave no image tokens in outputs/
os.environ["STKVLM_PRECISION"] = "fp32"  # what tests compare does not hang on the CPU's abilities

import hypothesis  # noqa: E402 - the settings above must come before anything reads them
import pytest  # noqa: E402

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")  # a busy machine is no fault of what is tested

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@functools.cache
def missing_game() -> str:
    """Why the game cannot be rendered here, empty where it can."""
    from stkvlm_lib.game.game_assets import RenderError, find_assets
    from stkvlm_lib.game.pystk_adapter import load_game

    try:
        load_game()
        return "" if find_assets() else "the game's data are not here and would be downloaded"
    except RenderError as error:
        return str(error)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also the tests that take minutes each")


def pytest_xdist_auto_num_workers(config):
    """A worker a core for all tests, at most four (each needs up to 2 GB); none for chosen ones, which would wait for
    workers longer than for the tests."""
    if config.args_source is config.ArgsSource.ARGS or config.option.keyword or config.option.markexpr:
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each worker: torch would take all cores in each
    return min(os.cpu_count(), 4)


def pytest_collection_modifyitems(items):
    """The longest file first, so that no worker is left with it in the end."""
    items.sort(key=lambda item: item.path.stem != "test_notebooks")


def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") and not (item.config.option.slow or "slow" in item.config.option.markexpr):
        pytest.skip("takes minutes; --slow runs it too")
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)  # what a command sets for its process would trip hypothesis in later tests
    if item.get_closest_marker("browser") and not find_chromium():
        pytest.skip("needs Chromium, which .ci/run installs")
    if item.get_closest_marker("render") and (missing := missing_game()):
        pytest.skip(missing)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def page():
    """A browser page without a network."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        yield context.new_page()
        browser.close()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """A small random base."""
    from tiny import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def bundled():
    """The bundled frames."""
    from stkvlm_lib.config import ROOT
    from stkvlm_lib.data.frame_sets import read_frames

    return read_frames(ROOT / "frames")


@pytest.fixture(scope="session")
def busy_scenes(bundled):
    """Valid pictures in which the strict rules see an ego kart and two others."""
    from stkvlm_lib.grammar.scene import STRICT_RULES, read_scene

    scenes = (read_scene(view, rules=STRICT_RULES) for view in bundled.views("valid"))
    return [scene for scene in scenes if scene.ego and len(scene.karts) > 2]


@pytest.fixture(scope="session")
def records(bundled):
    """All questions about the bundled valid races."""
    from stkvlm_lib.qa.qa_sets import make_records

    return make_records(bundled, "valid")


@pytest.fixture(scope="session")
def few(bundled):
    """Every eighth frame of each bundled split."""
    return {split: frames[::8] for split, frames in bundled.splits.items()}


@pytest.fixture(scope="session")
def written(few, tmp_path_factory):
    """The question files of these frames, and what they hold."""
    from stkvlm_lib.parallel import Workers
    from stkvlm_lib.qa.generate import Plan, write_qa_sets

    folder = tmp_path_factory.mktemp("qa")
    return folder, write_qa_sets(few, folder, Plan(contrast_pictures=10), Workers(quiet=True))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """The folder of a complete run of the smoke profile, made once for all tests that look at it."""
    from stkvlm_lib import runs
    from stkvlm_lib.pipeline import Request, run_pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        yield run_pipeline(Request("smoke"))
