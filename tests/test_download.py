"""One large file by HTTP: what arrives, what is kept when it stops, and how it goes on."""

import http.server
import json
import random
import re
import shutil
import threading
from types import SimpleNamespace

import pytest

from stkvlm_lib.data import download as module
from stkvlm_lib.data.download import CHUNK, DownloadError, download

BODY = random.Random("download-0").randbytes(5 * CHUNK + 123)


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`; each request takes the next of `faults` (None: no fault) and is noted in `ranges`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.tag = BODY, '"one"'
        self.resumes = self.compares = self.length = True
        self.faults, self.ranges, self.slip = [], [], 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/some/frames.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        fault = server.faults.pop(0) if server.faults else None
        if fault and fault > 100:
            return self.send_error(fault)
        begin = 0
        same = not server.compares or self.headers.get("If-Range", server.tag) == server.tag
        if asked and server.resumes and same:
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + server.slip
            if begin >= len(server.body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        rest = server.body[begin:]
        if server.length:
            self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", server.tag)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(rest[: fault * CHUNK] if fault else rest)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # takes precedence over NO_PROXY
    monkeypatch.setattr(module, "WAITS", (0, 0))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def half(server, tmp_path):
    """A download that stopped after two chunks, as a killed process leaves it."""
    part = tmp_path / "frames.zip.part"
    part.write_bytes(BODY[: 2 * CHUNK])
    note = {"url": server.url, "version": server.tag, "size": len(BODY)}
    (tmp_path / "frames.zip.part.json").write_text(json.dumps(note))
    return tmp_path / "frames.zip"


def test_a_file_arrives_whole_and_alone(server, tmp_path):
    path = download(server.url, tmp_path / "new" / "frames.zip")
    assert path.read_bytes() == BODY
    assert [file.name for file in path.parent.iterdir()] == ["frames.zip"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "frames.zip"
    path.write_bytes(b"mine")
    assert download(server.url, path).read_bytes() == b"mine"
    assert server.ranges == []


def test_a_dropped_connection_goes_on_where_it_broke(server, tmp_path, capsys):
    server.faults = [2, 1]
    assert download(server.url, tmp_path / "frames.zip").read_bytes() == BODY
    assert server.ranges == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert "trying again" in capsys.readouterr().err


def test_a_killed_download_goes_on_where_it_was(server, half):
    assert download(server.url, half).read_bytes() == BODY
    assert server.ranges == [f"bytes={2 * CHUNK}-"]
    assert [file.name for file in half.parent.iterdir()] == ["frames.zip"]


def test_a_download_killed_after_its_last_byte_needs_no_request(server, half):
    half.with_name("frames.zip.part").write_bytes(BODY)
    assert download(server.url, half).read_bytes() == BODY
    assert server.ranges == []


def test_a_server_that_cannot_resume_starts_over_and_says_so(server, half, capsys):
    server.resumes = False
    assert download(server.url, half).read_bytes() == BODY
    assert f"starting over after {2 * CHUNK:,} bytes" in capsys.readouterr().err


@pytest.mark.parametrize(("keeps_tag", "requests"), [(False, 1), (True, 2)], ids=["new tag", "same tag, other size"])
def test_a_file_that_changed_on_the_server_starts_over(server, half, keeps_tag, requests):
    server.body = BODY[::-1] + b"longer"
    server.tag = server.tag if keeps_tag else '"two"'
    assert download(server.url, half).read_bytes() == server.body
    assert len(server.ranges) == requests


def test_an_answer_from_another_place_is_not_appended(server, half):
    server.slip = 7
    assert download(server.url, half).read_bytes() == BODY
    assert server.ranges == [f"bytes={2 * CHUNK}-", None]


def test_a_server_that_ignores_the_tag_cannot_mix_two_files(server, half):
    server.body, server.tag, server.compares = BODY[::-1], '"two"', False
    assert download(server.url, half).read_bytes() == server.body
    assert server.ranges == [f"bytes={2 * CHUNK}-", None]


def test_a_file_that_shrank_on_the_server_starts_over(server, half):
    server.body = BODY[:CHUNK]
    assert download(server.url, half).read_bytes() == server.body
    assert server.ranges == [f"bytes={2 * CHUNK}-", None]


@pytest.mark.parametrize("note", [None, "{", '{"url": "http://elsewhere/frames.zip", "version": null, "size": null}'])
def test_a_part_of_something_else_is_dropped(server, half, note):
    file = half.with_name("frames.zip.part.json")
    file.write_text(note) if note else file.unlink()
    assert download(server.url, half).read_bytes() == BODY
    assert server.ranges == [None]


def test_it_stops_when_attempts_bring_nothing_more_and_keeps_what_came(server, tmp_path):
    server.faults = [2, 503, 503, 503]
    with pytest.raises(DownloadError, match=rf"503.*{2 * CHUNK:,} bytes are kept: call again"):
        download(server.url, tmp_path / "frames.zip")
    assert (tmp_path / "frames.zip.part").read_bytes() == BODY[: 2 * CHUNK]
    assert not (tmp_path / "frames.zip").exists()
    assert download(server.url, tmp_path / "frames.zip").read_bytes() == BODY


def test_attempts_that_bring_more_never_run_out(server, tmp_path):
    server.faults = [1, 1, 1, 1, 1]
    assert download(server.url, tmp_path / "frames.zip").read_bytes() == BODY
    assert len(server.ranges) == 6 > len(module.WAITS) + 1


def test_an_address_that_does_not_hold_fails_at_once(server, tmp_path):
    server.faults = [404]
    with pytest.raises(DownloadError, match="frames.zip: the server answers 404"):
        download(server.url, tmp_path / "frames.zip")
    assert len(server.ranges) == 1


def test_nobody_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAITS", ())
    with pytest.raises(DownloadError, match="127.0.0.1:1/frames.zip.*refused.*check the network"):
        download("http://127.0.0.1:1/frames.zip", tmp_path / "frames.zip")


def test_a_server_that_tells_no_length(server, tmp_path):
    server.length = False
    assert download(server.url, tmp_path / "frames.zip").read_bytes() == BODY


def test_no_room_is_said_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match=f"{len(BODY):,} bytes are still to come but 1,000 are free"):
        download(server.url, tmp_path / "frames.zip")
    assert list(tmp_path.iterdir()) == []
