"""Whom the explorer's page answers: this machine, whoever has the token, and nothing that another site's page sends."""

import http.client
import logging
import re
import time
from urllib.parse import urlsplit

import pytest
from serving import PATIENCE_S, own_environment, served

from stkvlm_lib.explore.server import GONE_AFTER, LOOK_EVERY, WithoutToken, is_opened_by_someone

NO_KERNEL = "00000000-0000-0000-0000-000000000000"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(host and port, token, file with what it complains of) of a server without a run: no kernel is started here."""
    home = tmp_path_factory.mktemp("server")
    with served(home, own_environment(home / "jupyter"), home / "complaints.txt") as address:
        yield urlsplit(address).netloc, address.split("token=")[1], home / "complaints.txt"


def ask(server, path, token="", **headers) -> tuple[int, str, str]:
    """(status, where it leads, text) of a request; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, given, text = headers_of(server, path, **named | ({"Authorization": f"token {token}"} if token else {}))
    return status, given.get("Location", ""), text


@pytest.mark.parametrize("token", ["", "not-this-one"])
@pytest.mark.parametrize("path", ["/", "/explorer.ipynb", "/voila/files/explorer.ipynb", "/?picture=a"])
def test_without_the_token_there_is_the_login_and_nothing_else(server, path, token):
    status, location, text = ask(server, path, token)
    assert status == 302 and location.startswith("/login?next=") and text == ""


@pytest.mark.parametrize("path", [f"/api/kernels/{NO_KERNEL}", f"/api/kernels/{NO_KERNEL}/channels"])
def test_without_the_token_kernels_are_not_even_looked_for(server, path):
    assert ask(server, path, **(UPGRADE if path.endswith("channels") else {}))[0] == 403


def test_other_names_of_this_machine_are_refused(server):
    """A site whose name was made to point here is no page of ours, even with the token."""
    assert ask(server, "/", server[1], Host="evil.example:8866")[0] == 403
    channels = f"/api/kernels/{NO_KERNEL}/channels"
    assert ask(server, channels, server[1], Host="evil.example", Origin="http://evil.example", **UPGRADE)[0] == 403


@pytest.mark.parametrize(
    ("site", "dest"), [("cross-site", "image"), ("same-site", "iframe"), ("cross-site", "document"), ("none", "embed")]
)
def test_a_page_of_another_site_starts_no_kernel(server, site, dest):
    status, _, text = ask(server, "/", server[1], Sec_Fetch_Site=site, Sec_Fetch_Dest=dest)
    assert status == 403 and "by a click on a link" in text


def headers_of(server, path, **headers):
    """(status, headers, text) of a request."""
    connection = http.client.HTTPConnection(server[0], timeout=PATIENCE_S)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    status, text = answer.status, b"" if answer.status == 101 else answer.read()
    connection.close()
    return status, answer.headers, text.decode(errors="replace")


def test_another_sites_page_opens_no_websocket_to_a_living_kernel(server):
    """It may know the kernel's id, and the browser may send the cookie or even the token along."""
    address, token, _ = server
    status, headers, text = headers_of(server, f"/?token={token}")
    kernel = re.search(r'"kernelId": "([^"]+)"', text).group(1)
    cookie = "; ".join(given.split(";")[0] for given in headers.get_all("Set-Cookie"))
    channels, evil, own = f"/api/kernels/{kernel}/channels", "http://evil.example", f"http://{address}"
    assert status == 200
    for path, headers in (
        (channels, {"Origin": evil, "Cookie": cookie}),
        (channels, {"Origin": "null", "Cookie": cookie}),
        (channels, {"Origin": own.replace("127.0.0.1", "127.0.0.1.evil.example"), "Cookie": cookie}),
        (channels, {"Origin": evil, "Host": "evil.example", "Cookie": cookie}),
        (f"{channels}?token={token}", {"Origin": evil}),
        (channels, {"Origin": evil, "Authorization": f"token {token}"}),
        (channels, {"Origin": own}),
        (channels, {}),
        (f"{channels}?token=not-this-one", {"Origin": own}),
    ):
        assert headers_of(server, path, **UPGRADE, **headers)[0] == 403, (path, headers)
    assert headers_of(server, channels, **UPGRADE, Origin=own, Cookie=cookie)[0] == 101, "the page's own is taken"


@pytest.mark.parametrize(
    "path",
    ["", "x", "x/y", "x/static", "x/static/a", "lab/static/../../../../etc/passwd", "lab/other/a.js", "lab/static/%00"]
    + ["%2e%2e/static/a", "lab/static/" + 300 * "a", "//static//", "explorer/static/..%2f..%2fexplorer.ipynb"],
)
def test_no_address_of_a_template_makes_the_server_fail(server, path):
    assert ask(server, f"/voila/templates/{path}", server[1])[0] in (400, 403, 404)


def test_what_is_not_there_is_said_so_and_nothing_below_the_page_is_served(server):
    for path in ("/explorer.ipynb", "/voila/files/explorer.ipynb"):
        assert ask(server, path, server[1])[0] == 404
    assert ask(server, f"/api/kernels/{NO_KERNEL}", server[1])[0] == 404
    assert ask(server, f"/api/kernels/{NO_KERNEL}/channels", server[1], **UPGRADE)[0] == 404


def test_logging_out_is_answered(server):
    status, _, text = ask(server, "/logout")
    assert status == 200 and "logged out" in text


def test_the_token_is_in_no_complaint_of_the_server(server):
    address, token, complaints = server
    assert ask(server, f"/nothing?token={token}")[0] == 404
    assert token not in complaints.read_text(), "whether a failed request is logged or not"


def test_who_may_open_the_page():
    click = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
    assert all(map(is_opened_by_someone, ({}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}, click)))
    assert not is_opened_by_someone({**click, "Sec-Fetch-User": "?0"})
    assert not is_opened_by_someone({**click, "Sec-Fetch-Dest": "iframe"})


def test_the_token_is_left_out_of_what_is_logged():
    record = logging.makeLogRecord({"msg": "%s failed", "args": ("GET /?token=secret",)})
    assert WithoutToken("secret").filter(record) and record.getMessage() == "GET /?token=… failed"


@pytest.mark.slow
def test_a_page_says_what_it_waits_for_and_leaves_no_kernel_when_it_is_gone(server):
    """Closed at once, as by a browser that crashed: nothing tells the server, and it ends the kernel by itself."""
    status, _, text = ask(server, "/", server[1])
    assert "voila_process = function (n, all) { update_loading_text(n, all, `Opening the explorer: step" in text
    kernel = re.search(r'"kernelId": "([^"]+)"', text).group(1)
    assert status == 200 and ask(server, f"/api/kernels/{kernel}", server[1])[0] == 200
    until = time.monotonic() + GONE_AFTER + LOOK_EVERY + PATIENCE_S
    while ask(server, f"/api/kernels/{kernel}", server[1])[0] == 200:
        assert time.monotonic() < until, "the kernel goes on without a page"
        time.sleep(2)
