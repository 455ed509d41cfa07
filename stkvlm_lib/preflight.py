"""Before a run: whether all that it names is there, can be read and fits together, and what it will use."""

import re
import shutil
from pathlib import Path

from stkvlm_lib import runs
from stkvlm_lib.config import (
    EMBEDDED,
    ROOT,
    ConfigError,
    FinetuneConfig,
    ModelConfig,
    RunConfig,
    ScoreConfig,
    check_reporters,
    resolve,
)
from stkvlm_lib.model_files import ModelError, check_base, check_start, hash_weights, read_adapter
from stkvlm_lib.parallel import ClusterError, cluster

EXPECTED_TIME = {
    "smoke": "2 to 4 minutes on 2 cores",
    "cpu": "15 minutes on 2 cores, 25 on slow ones",
    "gpu": "depends on the GPU and the number of frames",
}
NEEDED_MEMORY_GB, NEEDED_DISK_GB = 6, 2
HUB_TIMEOUT = 20.0
"""Seconds in which the hub must say whether it has a base."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def preflight(profile: str, name: str, configs: dict[str, RunConfig]) -> None:
    """Say what the run will use and how long it takes. Raises ConfigError when something it needs is not there."""
    import psutil

    config = configs["04"]
    check_named(configs)
    try:
        with cluster(configs["02"].cluster):
            pass
    except ClusterError as error:
        raise ConfigError(f"CLUSTER: {error}") from None
    _check_questions(config)
    if configs["05"].compare_run:
        runs.compared_run(configs["05"].compare_run)
    base = describe_base(config)
    runs.set_up_torch()  # else the number of threads would be torch's own
    memory, disk = psutil.virtual_memory().available / 1e9, shutil.disk_usage(ROOT).free / 1e9
    print(f"run     {name} (profile {profile}, seed {config.seed})")
    print(f"device  {runs.device_name()}, computes in {_precision(config)}")
    print(f"memory  {memory:.0f} GB free{_scarce(memory, NEEDED_MEMORY_GB)}")
    print(f"disk    {disk:.0f} GB free{_scarce(disk, NEEDED_DISK_GB)}")
    print(f"frames  {', '.join(map(str, config.frames_paths))}")
    print(f"base    {base}")
    print(f"time    {EXPECTED_TIME[profile]}", flush=True)


def _precision(config: ScoreConfig) -> str:
    """Raises ConfigError for one that the device does not train in."""
    from stkvlm_lib import device

    return device.precision_of(device.compute_dtype(device.pick_device(), config.precision))


def _scarce(gigabytes: float, needed: float) -> str:
    return "" if gigabytes >= needed else f" - less than the {needed} GB that a run can need"


def check_named(configs: dict[str, RunConfig]) -> None:
    """Refuse what can be refused without importing anything heavy: folders, files and logs that are not there, and a
    START_ADAPTER that does not fit. Raises ConfigError."""
    _check_places(configs["04"])
    _check_start_adapter(configs["03"])
    check_reporters(configs["03"])


def _check_places(config: ScoreConfig) -> None:
    for folder in config.frames_paths:
        if not folder.is_dir():
            raise ConfigError(f"FRAMES_DIR: no folder {folder}; give one with frames, or restore the bundled `frames/`")
        if not any(next(folder.glob(pattern), None) for pattern in ("*_info.json", "*/*_info.json")):
            raise ConfigError(f"FRAMES_DIR: no *_info.json in {folder} or a folder in it; give one with frames")
    for parameter, file in (("QA_FILE", config.qa_file), ("MC_FILE", config.mc_file)):
        if file and not resolve(file).is_file():
            raise ConfigError(f"{parameter}: no file {resolve(file)}; give one in the course's format, or none")
    if config.own_words_pictures and not config.own_words_path.is_file():
        raise ConfigError(f"OWN_WORDS_FILE: no file {config.own_words_path}; give one, or OWN_WORDS_PICTURES 0")


def _check_start_adapter(config: FinetuneConfig) -> None:
    if not config.start_adapter:
        return
    try:
        adapter = read_adapter(resolve(config.start_adapter))
    except ModelError as error:
        raise ConfigError(f"START_ADAPTER: {error}") from None
    check_start(config, adapter)
    base, made_on = config.base_model, adapter.record["base"]
    same = hash_weights(_folder_of(base)) == made_on["sha256"] if runs.base_is_local(base) else base == made_on["name"]
    if not same:
        raise ConfigError(
            f"START_ADAPTER: {adapter.folder} was made on base {made_on['name']} (weights {made_on['sha256'][:12]}), "
            f"but BASE_MODEL is {base or EMBEDDED}; set BASE_MODEL to the adapter's base"
        )


def _check_questions(config: ScoreConfig) -> None:
    """Raises ConfigError where QA_FILE, MC_FILE or OWN_WORDS_FILE cannot be read, or the first two ask about pictures
    that are not in FRAMES_DIR."""
    if not config.qa_file and not config.mc_file and not config.own_words_file:
        return
    from stkvlm_lib.data.frame_sets import read_frames
    from stkvlm_lib.evaluation.multiple_choice import read_items
    from stkvlm_lib.evaluation.own_words import read_own_words
    from stkvlm_lib.evaluation.question_sets import records_to_score

    frames = read_frames(config.frames_paths, skip_broken=config.skip_broken)
    for parameter, file, read in (
        ("QA_FILE", config.qa_file, lambda: records_to_score(config, frames)),
        ("MC_FILE", config.mc_file, lambda: read_items(resolve(config.mc_file), frames)),
        ("OWN_WORDS_FILE", config.own_words_file, lambda: read_own_words(config)),
    ):
        try:
            if file:
                read()
        except ValueError as error:
            raise ConfigError(f"{parameter}: {error}") from None


def describe_base(config: ModelConfig) -> str:
    """The base model and where it comes from. Raises ConfigError for one that is not there, or that no hub gives."""
    name = config.base_model
    if runs.base_is_local(name):
        folder = _folder_of(name)
        if not (folder / "config.json").is_file():
            raise ConfigError(f"BASE_MODEL: no model in {folder}; restore it, or name another base with -p BASE_MODEL")
        try:
            check_base(folder)
        except ModelError as error:
            raise ConfigError(f"BASE_MODEL: {error}") from None
        return str(folder)
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"BASE_MODEL: {name!r} is neither a folder, nor 'embedded', nor a hub id such as org/name")
    return f"{name} ({_where_on_hub(name, config.base_revision or None)})"


def _folder_of(base: str) -> Path:
    """Where a base lies that needs no hub."""
    return ROOT / "models" / EMBEDDED if base in ("", EMBEDDED) else resolve(base)


def _where_on_hub(name: str, revision: str | None) -> str:
    """Raises ConfigError where a base is neither in the local cache nor on a hub that can be reached."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str) and any(Path(cached).parent.glob("*.safetensors")):  # config.json may lie there alone
        return "in the local cache"
    remedy = f"connect to the hub, or name a folder or {EMBEDDED} with -p BASE_MODEL"
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"BASE_MODEL: {name} is not in the local cache, and HF_HUB_OFFLINE is set; unset it, {remedy}"
        )
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # of any kind, by what is between here and the hub
        reason = (str(error).splitlines() or [""])[0]
        what = f"not in the local cache, and the hub does not give it ({type(error).__name__}: {reason:.200})"
        raise ConfigError(f"BASE_MODEL: {name} is {what}; see whether the name is right, {remedy}") from None
    return "will be downloaded from the hub"
