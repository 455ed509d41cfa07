"""The explorer as a page of its own: notebook 05 served by Voila on this machine, to whoever has the token."""

import os
import secrets
import tempfile
from pathlib import Path

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from stkvlm_lib.config import ROOT
from stkvlm_lib.explore.links import ADDRESS, PORT, Place, query

NOTEBOOK = ROOT / "notebooks" / "05_explore.ipynb"
NOTEBOOK_ONLY = "notebook-only"
"""The tag of cells that the page leaves out."""
TEMPLATES = Path(__file__).with_name("voila")


def write_page(folder: Path, run: Path, parameters: dict[str, str]) -> Path:
    """Notebook 05 with these parameters, without what only its readers need; RUN_DIR only where the run is there."""
    notebook = load_notebook_node(str(NOTEBOOK))
    given = {"RUN_DIR": str(run)} if run.is_dir() else {}
    notebook = parameterize_notebook(notebook, given | parameters)
    name = run.resolve().name if run.is_dir() else "no run yet"
    notebook.cells = [cell for cell in notebook.cells if NOTEBOOK_ONLY not in cell.metadata.get("tags", [])]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"# Explorer · {name}"))
    notebook.metadata["title"] = f"Explorer · {name}"
    path = folder / "explorer.ipynb"
    nbformat.write(notebook, path)
    return path


def serve(run: Path, parameters: dict[str, str], port: int = PORT, place: Place | None = None) -> None:
    """Serve the page until interrupted; prints its address with the token. A port in use is replaced by another.

    place: what the printed address opens; any other by its query, see `links`.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(TEMPLATES), *filter(None, [os.environ.get("JUPYTER_PATH")])])
    from voila.app import Voila  # only now: it reads the paths just set
    from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler

    class Leave(VoilaShutdownKernelHandler):
        """Ends the kernel of a page that is left. Voila's page says so without a form's token, and would be refused;
        only who has the address's token and knows the kernel's id is heard."""

        def check_xsrf_cookie(self) -> None:
            pass

    class Page(Voila):
        def init_handlers(self) -> list:
            return [(r"/voila/api/shutdown/(.*)", Leave), *super().init_handlers()]

        def listen(self) -> None:
            from tornado.ioloop import IOLoop

            IOLoop.current().add_callback(self.announce)  # once it listens, and so knows its port
            super().listen()

        def announce(self) -> None:
            print(f"explorer     http://{ADDRESS}:{self.port}/?{query(place or Place(), token=self.token)}")
            print("stop         Ctrl+C", flush=True)

    with tempfile.TemporaryDirectory(prefix="explorer-") as folder:
        page = Page(token=secrets.token_urlsafe(24), ip=ADDRESS, port=port, open_browser=False, log_level="ERROR")
        page.tornado_settings = {"ws_ping_interval": 0}  # a page on the same machine is never silently gone
        path = write_page(Path(folder), run, parameters)
        page.initialize([str(path), "--template=explorer", "--theme=light", "--show_tracebacks=True"])
        page.config.KernelManager.transport = "ipc"  # the kernel listens to this user alone
        page.start()
