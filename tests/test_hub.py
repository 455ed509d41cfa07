"""Uploading an adapter: what goes up, and what is refused before anything does. Nothing here reaches a network."""

import math
import shutil
from fnmatch import fnmatchcase

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from stkvlm_lib import __main__ as cli
from stkvlm_lib import runs
from stkvlm_lib.config import ROOT
from stkvlm_lib.files import write_json
from stkvlm_lib.vlm.base_vlm import ModelError
from stkvlm_lib.vlm.export import export_adapter
from stkvlm_lib.vlm.hub import NEEDED, push_adapter

PROCESSOR = ("chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
PRIVATE = (".env", "optimizer.pt", "adapter_model.bin", "notes.md", "x/adapter_model.safetensors", "x/README.md")


@pytest.fixture
def adapter(tmp_path):
    """An adapter folder with files that have no business on a hub."""
    folder = shutil.copytree(ROOT / "models" / "course_adapter", tmp_path / "adapter")
    for name in (*PROCESSOR, *PRIVATE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


class Api:
    """Keeps what was asked of the hub, and which files of the folder its patterns let through."""

    calls: list = []

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, ignore_patterns, **options):
        names = [str(p.relative_to(folder_path)) for p in sorted(folder_path.rglob("*")) if p.is_file()]
        kept = [n for n in names if any(fnmatchcase(n, pattern) for pattern in allow_patterns)]
        sent = [n for n in kept if not any(fnmatchcase(n, pattern) for pattern in ignore_patterns)]
        self.calls.append(("upload", repo_id, sent))


@pytest.fixture(autouse=True)
def hub(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    return Api


def test_the_adapter_its_processor_and_its_card_go_up_and_nothing_else(adapter, hub):
    assert push_adapter(adapter, "owner/name") == "https://huggingface.co/owner/name"
    (made, name, options), (_, repository, sent) = hub.calls
    assert (made, name, repository) == ("create", "owner/name", "owner/name")
    assert options == {"private": False, "exist_ok": True}
    assert sent == sorted((*NEEDED, *PROCESSOR))


def test_of_an_adapter_whose_base_is_on_no_hub_it_is_said_how_others_get_it(adapter, capsys):
    push_adapter(adapter, "owner/name")
    assert "embedded is on no hub" in (said := capsys.readouterr().err) and "--merge" in said
    write_json(adapter / "stkvlm.json", {"base": {"name": "owner/base", "revision": "abc", "sha256": "0"}})
    push_adapter(adapter, "owner/name")
    assert capsys.readouterr().err == ""


def test_a_merged_model_goes_up_and_nothing_else(hub, tmp_path):
    folder = export_adapter(ROOT / "models" / "course_adapter", tmp_path / "merged", merge=True)
    written = sorted(path.name for path in folder.iterdir())
    (folder / "notes.md").write_text("mine")
    assert push_adapter(folder, "owner/name") == "https://huggingface.co/owner/name"
    assert hub.calls[1][2] == written and "model.safetensors" in written
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="weights cannot be read"):
        push_adapter(folder, "owner/name")


def test_an_adapter_exported_beside_its_base_is_not_pushed(hub, tmp_path):
    folder = export_adapter(ROOT / "models" / "course_adapter", tmp_path / "beside", merge=False)
    with pytest.raises(ModelError, match="export it with --merge"):
        push_adapter(folder, "owner/name")
    assert hub.calls == []


@pytest.mark.parametrize("name", ["owner", "owner/name/more", "../name x", ""])
def test_an_impossible_name_is_refused(adapter, hub, name):
    with pytest.raises(ModelError, match="owner/name"):
        push_adapter(adapter, name)
    assert hub.calls == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_do_not_go_up(adapter, hub, value):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[3]
    weights[name][1, 2] = value
    save_file(weights, path)
    with pytest.raises(ModelError, match=f"{name} holds values that are no finite numbers"):
        push_adapter(adapter, "owner/name")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match="weights cannot be read"):
        push_adapter(adapter, "owner/name")
    assert hub.calls == []


@pytest.mark.parametrize("missing", ["README.md", "adapter_model.safetensors", "mean_image.png"])
def test_an_incomplete_folder_is_refused(adapter, hub, missing):
    (adapter / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        push_adapter(adapter, "owner/name")
    assert hub.calls == []


def test_without_a_token_the_remedy_is_named_in_one_line(adapter, hub, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert cli.main(["push", str(adapter), "owner/name"]) == 2
    error = capsys.readouterr().err
    assert "hf auth login" in error and "HF_TOKEN" in error and error.count("\n") == 1
    assert hub.calls == []


def test_offline_nothing_is_tried(adapter, hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        push_adapter(adapter, "owner/name")
    assert hub.calls == []


@pytest.mark.parametrize("kind", [OSError, ValueError, Exception])
def test_what_the_hub_refuses_is_said_and_that_it_is_not_there(adapter, monkeypatch, kind):
    """What the client raises where there is no network is its own kind of Exception."""

    def refuse(self, name, **options):
        raise kind("403 Forbidden\nmore")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(ModelError, match="did not take owner/name: 403 Forbidden; check the network, the name"):
        push_adapter(adapter, "owner/name")


def test_the_command_finds_an_adapter_by_its_run(adapter, hub, monkeypatch, capsys):
    run = adapter.parent.rename(adapter.parent.with_name("a-run"))
    monkeypatch.setattr(runs, "OUTPUTS", run.parent)
    for given in (run.name, str(run), str(run / "adapter")):
        assert cli.main(["push", given, "owner/name"]) == 0
    assert [call[0] for call in hub.calls] == ["create", "upload"] * 3
    assert cli.main(["push", "another-run", "owner/name"]) == 2
    assert "another-run: no such run" in capsys.readouterr().err
