"""Voila as the explorer needs it: for this machine and whoever has the token, keeping nothing of a page that is gone.

Imported only when JUPYTER_PATH names the page's template, because Voila reads it when it is imported.
"""

import logging
from collections.abc import Mapping

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, authenticated
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.static_file_handler import AllowListFileHandler, TemplateStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from stkvlm_lib.explore.links import ADDRESS, Place, query

GONE_AFTER, LOOK_EVERY = 60, 20
"""Seconds without a page and without work after which a kernel ends; seconds between two looks."""
WAIT_FOR_WIDGETS = 600
"""Seconds that the page waits for a cell's output after the kernel's reply. The explorer sends hundreds of messages
before it; with nbclient's four seconds the page of a busy machine stays empty, without a word."""
LOGGERS = ("tornado.access", "tornado.application", "tornado.general")


def is_opened_by_someone(headers: Mapping[str, str]) -> bool:
    """Whether a request for the page comes from a person: typed, reloaded, or a link that was clicked.

    A page of another site may send requests of its own, as a picture, a frame or a redirection; each would start a
    kernel. Browsers say so in these headers; what sends none is no browser.
    """
    if headers.get("Sec-Fetch-Dest", "document") != "document":
        return False
    own = headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    return own or headers.get("Sec-Fetch-User") == "?1"


class ExplorerPage(TornadoVoilaHandler):
    """The page. Nothing lies below its address."""

    @authenticated
    async def get(self, path: str | None = None) -> None:
        if path:
            self.refuse(404, "There is nothing at this address.")
        elif not is_opened_by_someone(self.request.headers):
            self.refuse(403, "The explorer opens by its address or by a click on a link to it, not from within a page.")
        else:
            await super().get(path)

    def refuse(self, status: int, reason: str) -> None:
        self.set_status(status)
        self.finish(reason)


class TemplateFiles(TemplateStaticFileHandler):
    """Scripts and styles of the page. What is no address of one is not there, where Voila's own would fail."""

    async def get(self, path: str, include_body: bool = True) -> None:
        try:
            await super().get(path, include_body)
        except (ValueError, AssertionError, OSError):
            raise HTTPError(404) from None


class Channels(VoilaKernelWebsocketHandler):
    """What a page and its kernel say to each other. A page of another site is refused also where it has the token."""

    def skip_check_origin(self) -> bool:
        return False


class Leave(VoilaShutdownKernelHandler):
    """Ends the kernel of a page that is left. Voila's page says so without a form's token, and would be refused; only
    who has the address's token and knows the kernel's id is heard."""

    def check_xsrf_cookie(self) -> None:
        pass


OWN_HANDLERS = {
    TornadoVoilaHandler: ExplorerPage,
    TemplateStaticFileHandler: TemplateFiles,
    VoilaKernelWebsocketHandler: Channels,
}
"""Voila's handlers -> what takes their place."""


class WithoutToken(logging.Filter):
    """Leaves the token out of what is logged, such as the address of a request that failed."""

    def __init__(self, token: str):
        super().__init__()
        self.token = token

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(self.token, "…"), ()
        return True


class ExplorerServer(Voila):
    """Voila with the explorer's handlers. place: what the printed address opens."""

    place = Place()

    def set_up(self, socket_folder: str) -> None:
        """Settings that hold for every page; call it once, between `initialize` and `start`.

        socket_folder: where the kernels' sockets lie, see `page.find_socket_folder`.
        """
        self.connection_dir_root = socket_folder
        self.config.KernelManager.transport = "ipc"  # the kernel listens to this user alone
        self.config.KernelRestarter.restart_limit = 0  # another kernel would know nothing of what is on the page
        self.config.NotebookClient.iopub_timeout = WAIT_FOR_WIDGETS
        self.config.MappingKernelManager.cull_idle_timeout = GONE_AFTER
        self.config.MappingKernelManager.cull_interval = LOOK_EVERY
        self.tornado_settings = {
            "ws_ping_interval": 0,  # a page on the same machine is never silently gone
            "allow_remote_access": False,  # only names of this machine: other sites may have theirs point to it
            "static_path": DEFAULT_STATIC_FILES_PATH,  # Jupyter's pages for errors and for logging out name files there
            "static_url_prefix": "/voila/static/",
        }
        for logger in (*map(logging.getLogger, LOGGERS), self.log):
            logger.addFilter(WithoutToken(self.token))

    def init_handlers(self) -> list:
        given = [handler for handler in super().init_handlers() if handler[1] is not AllowListFileHandler]
        return [
            (r"/voila/api/shutdown/(.*)", Leave),
            *((route, OWN_HANDLERS.get(handler, handler), *rest) for route, handler, *rest in given),
        ]

    def listen(self) -> None:
        IOLoop.current().add_callback(self.announce)  # once it listens, and so knows its port
        super().listen()

    def announce(self) -> None:
        print(f"explorer     http://{ADDRESS}:{self.port}/?{query(self.place, token=self.token)}")
        print("stop         Ctrl+C", flush=True)
