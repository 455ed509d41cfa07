"""The model that all pages share: its answers are those of a model of one's own, and its end is told and mended."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from serving import PATIENCE_S, free_port, own_environment
from stub_model import StubModel

from stkvlm_lib.config import ROOT, ExplorerConfig
from stkvlm_lib.explore import model_process
from stkvlm_lib.explore.asking import Asker, AskError
from stkvlm_lib.explore.explorer import explore
from stkvlm_lib.explore.model_host import ModelHost
from stkvlm_lib.explore.models import ADDRESS_VARIABLE, OwnModel, SharedModel
from stkvlm_lib.explore.occlusion import occlude
from stkvlm_lib.explore.patches import BATCH, PATCHES
from stkvlm_lib.explore.run import model_of
from stkvlm_lib.model_files import ModelError

QUESTION = "What track is this?"


@pytest.fixture
def folder():
    """Short enough a path for a socket, which pytest's own is not where a worker's name stands in it."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def listener(folder):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "model"))
        made.listen()
        yield made


@pytest.fixture
def stub(listener, folder):
    """(the model behind the socket, what was loaded) served by a thread of this process."""
    model, loaded = StubModel(), []

    def load(adapter, base):
        loaded.append((adapter.name, base))
        if adapter.name == "broken":
            raise ModelError("broken: holds NaN")
        return model

    def serve():
        with suppress(OSError):  # the listener is closed under it in the end
            model_process.serve(listener, load)

    threading.Thread(target=serve, daemon=True).start()
    return model, loaded


@pytest.fixture(scope="module")
def view(bundled):
    return bundled.views("test")[0]


def test_a_shared_model_answers_as_one_of_ones_own(stub, folder, view):
    shared, own = SharedModel(folder / "model", folder / "adapter"), OwnModel(StubModel())
    assert not shared.is_loaded
    for question in (QUESTION, "Who will win?", "Is sara_the_wizard in view?"):
        ours, theirs = Asker(shared).ask(view, question), Asker(own).ask(view, question)
        assert (ours.understood, ours.answer, ours.label) == (theirs.understood, theirs.answer, theirs.label)
        assert ours.rivals == theirs.rivals
    assert shared.is_loaded and stub[0].encoded == 1 and stub[1] == [("adapter", "")], "one picture, one load"
    assert shared.answer(view.image_path, QUESTION, alone=True) == own.answer(view.image_path, QUESTION, alone=True)
    assert occlude(shared, view, QUESTION) == occlude(own, view, QUESTION)


def test_two_pages_share_what_is_loaded_and_two_adapters_do_not(stub, folder, view):
    for name in ("one", "one", "two"):
        SharedModel(folder / "model", folder / name, "a-base").put(view.image_path, QUESTION)
    assert stub[1] == [("one", "a-base"), ("two", "a-base")]


def test_it_is_loaded_while_a_question_is_thought_of(stub, folder, bundled, records):
    widget = explore(bundled, records, model=SharedModel(folder / "model", folder / "adapter"))
    assert stub[1] == []
    widget.on_action({"action": "ask"})
    until = time.monotonic() + PATIENCE_S
    while not stub[1]:
        assert time.monotonic() < until
        time.sleep(0.01)
    widget.tabs.selected_index = 0
    widget.on_action({"action": "ask"})
    widget.ask.put(QUESTION)
    assert stub[1] == [("adapter", "")] and widget.ask.reply


def test_what_goes_wrong_is_told_and_the_next_is_answered(stub, folder, view, tmp_path):
    with pytest.raises(AskError, match="The model cannot be loaded. broken: holds NaN"):
        SharedModel(folder / "model", folder / "broken").put(view.image_path, QUESTION)
    shared = SharedModel(folder / "model", folder / "adapter")
    with pytest.raises(AskError, match="could not answer. .*No such file.*absent.png"):
        shared.put(tmp_path / "absent.png", QUESTION)
    for said in (b"nonsense\n", b"[]\n", b'{"call": "exit", "adapter": "a", "base": ""}\n', b"", b"x" * 200_000):
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(folder / "model"))
            try:
                channel.sendall(said)
                channel.shutdown(socket.SHUT_WR)
                heard = channel.makefile("rb").readline()
            except ConnectionError:  # hung up on before all was said
                heard = b""
        assert (b'{"error": ' in heard) is (said[-1:] == b"\n")
    assert shared.put(view.image_path, QUESTION).answer.text in ("seen", "unseen")


def test_a_map_lets_the_questions_of_others_in_between(stub, folder, view, monkeypatch):
    """Another page's question waits for one batch of patches at most, however long the map takes."""
    order, begun = [], threading.Event()
    call = model_process._call

    def noted(model, request):
        order.append(request["call"])
        if request["call"] == "cover" and order.count("cover") == 1:
            begun.set()
            time.sleep(0.5)
        return call(model, request)

    monkeypatch.setattr(model_process, "_call", noted)
    shared = SharedModel(folder / "model", folder / "adapter")
    making = threading.Thread(target=occlude, args=(shared, view, QUESTION))
    making.start()
    assert begun.wait(PATIENCE_S)
    shared.put(view.image_path, QUESTION)
    making.join(PATIENCE_S)
    assert order.count("cover") == -(-PATCHES // BATCH) and order.index("put") <= 3


@pytest.mark.parametrize("heard", [b"", b'{"value": '])
def test_a_page_that_is_hung_up_on_says_what_to_do(listener, folder, view, heard):
    def hang_up():
        channel, _ = listener.accept()
        channel.sendall(heard)
        channel.close()

    threading.Thread(target=hang_up).start()
    with pytest.raises(AskError, match="has ended before it answered, most likely because memory ran out.* ask again"):
        SharedModel(folder / "model", folder / "adapter").put(view.image_path, QUESTION)


@pytest.fixture
def host(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with closing(ModelHost(folder)) as made:
        yield made


def test_a_model_that_is_killed_is_told_and_started_anew(host, folder, view):
    """Broken on purpose: no adapter lies there, so each question is answered by the process without loading one."""
    shared = SharedModel(host.address, folder / "nothing")
    assert host.process is None, "not before it is asked"
    with pytest.raises(AskError, match="cannot be loaded. .*nothing: no adapter there"):
        shared.put(view.image_path, QUESTION)
    first = host.process
    os.kill(first.pid, signal.SIGSTOP)  # busy, so that the next question waits
    until = time.monotonic() + PATIENCE_S
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < until
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(host.address))
        waiting.sendall(b"nonsense\n")
        os.kill(first.pid, signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert waiting.recv(1) == b"", "hung up on"
    told = "has ended"
    while "has ended" in told:  # as is everyone who comes until all are hung up on
        with pytest.raises(AskError) as caught:
            shared.put(view.image_path, QUESTION)
        told = str(caught.value)
    assert "no adapter there" in told
    assert host.process.pid != first.pid
    host.close()
    assert host.process.poll() is not None, "it ends with the server"
    with pytest.raises(AskError, match="cannot be reached"):
        shared.put(view.image_path, QUESTION)


def test_it_ends_with_a_server_that_is_killed(folder, listener):
    """The server's end closes the standard input, however it ends."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "stkvlm_lib.explore.model_process", str(listener.fileno())],
        stdin=subprocess.PIPE,
        pass_fds=[listener.fileno()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with pytest.raises(AskError, match="no adapter there"):
        SharedModel(folder / "model", folder / "nothing").put(folder / "a.png", QUESTION)
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 0


ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """For each way to end it (folder, server as `explore` starts it), all started at once."""
    environment = own_environment(tmp_path_factory.mktemp("jupyter") / "home")
    started, short = {}, tempfile.TemporaryDirectory()  # pytest's own folders are too long for a socket's path
    for number in ENDS:
        folder = Path(tempfile.mkdtemp(dir=short.name))
        command = [sys.executable, "-P", "-m", "stkvlm_lib", "explore", str(folder), "--port", str(free_port())]
        own = environment | {"TMPDIR": str(folder)}
        started[number] = folder, subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)
    yield started
    for _, server in started.values():
        server.kill()
        server.wait()
    short.cleanup()


@pytest.mark.parametrize("number", ENDS)
def test_it_ends_with_the_server_and_nobody_else_gets_at_it(servers, number):
    """However the server is ended; the socket's folder is for this user alone."""
    folder, server = servers[number]
    assert any("token=" in line for line in server.stdout)
    (address,) = folder.glob("explorer-*/model")
    assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
    with pytest.raises(AskError, match="no adapter there"):
        SharedModel(address, folder / "nothing").put(folder / "a.png", QUESTION)
    (process,) = psutil.Process(server.pid).children()
    assert "stkvlm_lib.explore.model_process" in process.cmdline()
    server.send_signal(number)
    server.wait(PATIENCE_S)
    with suppress(psutil.NoSuchProcess):
        process.wait(PATIENCE_S)
    assert not process.is_running()
    assert number == signal.SIGKILL or not list(folder.glob("explorer-*")), "nothing is left"


def test_a_page_needs_nothing_of_what_answering_needs(tmp_path, monkeypatch, folder):
    """Opened and asked in a process of its own: no torch there."""
    from run_folder import make_run

    run = make_run(tmp_path / "a-run")
    code = f"""
import sys
from stkvlm_lib.config import ExplorerConfig
from stkvlm_lib.explore.run import explore_run
widget = explore_run(ExplorerConfig(run_dir={str(run)!r}))
widget.ask.put("What track is this?")
print(widget.ask.answer.value)
assert widget.ask.asker.has_model
assert not {{"torch", "transformers", "peft", "pandas"}} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), ADDRESS_VARIABLE: str(folder / "absent")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "cannot be reached" in said.stdout
    monkeypatch.setenv(ADDRESS_VARIABLE, str(folder / "model"))
    assert isinstance(model_of(ExplorerConfig(run_dir=str(run))), SharedModel)


def test_the_protocol_is_json_alone():
    """No pickles: a line that is no JSON is answered with an error, and nothing in it is run."""
    assert json.loads(json.dumps(model_process.reply_to(b"cos\nsystem\n(S'true'\ntR.\n", None)))["error"]
