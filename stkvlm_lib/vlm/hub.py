"""An adapter or a merged model with its card on the Hugging Face hub: the one call that sends anything anywhere, and
only when asked."""

import os
import re
import sys
from pathlib import Path

from stkvlm_lib.files import read_object
from stkvlm_lib.model_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    EXPORT_RECORD,
    MEAN_IMAGE_FILE,
    RECORD_FILE,
    ModelError,
    check_base,
    read_adapter,
    read_adapter_record,
    read_weights,
)

CARD = "README.md"
NEEDED = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECORD_FILE, MEAN_IMAGE_FILE, CARD)
PROCESSOR = (
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
"""Files of the processor; which of them there are depends on the base."""
MODEL = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json")
"""Files of a merged model."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push_adapter(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload an adapter, or a model that `export` has merged, to the repository owner/name, which is made where it is
    not there; -> its address.

    Raises ModelError, naming the remedy, before anything is sent for an incomplete folder, an impossible name or a
    missing token, for weights that are broken, and afterwards for what the hub refuses.
    """
    sent = _merged_files(folder) if (folder / EXPORT_RECORD).is_file() else _adapter_files(folder)
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name!r} is not a name on the hub; give it as owner/name")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise ModelError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it and call again")

    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise ModelError("no token for the hub; run `hf auth login`, or set HF_TOKEN to one that may write, and again")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*sent, *PROCESSOR],
            ignore_patterns=["*/*"],
            commit_message="Upload weights and card",
        )
    except Exception as error:  # of any kind, by the client's version: what is wrong with name or token, or no network
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "check the network, the name and the token's right to write"
        raise ModelError(f"the hub did not take {name}: {reason}; {remedy}") from error
    if sent is NEEDED and not (base := read_adapter_record(folder)["base"])["revision"]:
        remedy = f"for people without it push what `./run_all.sh export {folder} DIR --merge` writes"
        print(f"note: the adapter's base {base['name']} is on no hub; {remedy}", file=sys.stderr)
    return f"https://huggingface.co/{name}"


def _adapter_files(folder: Path) -> tuple[str, ...]:
    """What of an adapter's folder is sent. Raises ModelError for one that is incomplete or broken."""
    read_adapter_record(folder)
    if missing := [file for file in NEEDED if not (folder / file).is_file()]:
        raise ModelError(f"{folder}: no {', '.join(missing)}; give an adapter made by notebook 03")
    read_weights(read_adapter(folder))
    return NEEDED


def _merged_files(folder: Path) -> tuple[str, ...]:
    """What of an exported folder is sent."""
    if read_object(folder / EXPORT_RECORD).get("merged") is not True:
        raise ModelError(f"{folder}: an adapter beside its base is no one model; export it with --merge, and push that")
    check_base(folder)
    if not (folder / CARD).is_file():
        raise ModelError(f"{folder}: no {CARD}; export it again")
    return (EXPORT_RECORD, CARD, *MODEL)
