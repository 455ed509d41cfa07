"""The explorer as a page of its own: notebook 06 served by Voila on this machine, to whoever has the token."""

import os
import secrets
import tempfile
from contextlib import closing
from pathlib import Path

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from stkvlm_lib.config import ROOT, ConfigError, ExplorerConfig
from stkvlm_lib.explore.links import ADDRESS, Place
from stkvlm_lib.explore.model_host import ModelHost
from stkvlm_lib.explore.models import ADDRESS_VARIABLE
from stkvlm_lib.explore.run import read_run
from stkvlm_lib.explore.state import find_picture
from stkvlm_lib.installation import lead_to_this_library
from stkvlm_lib.parameters import make_config
from stkvlm_lib.qa.qa_sets import by_picture

NOTEBOOK = ROOT / "notebooks" / "06_explore.ipynb"
NOTEBOOK_ONLY = "notebook-only"
"""The tag of cells that the page leaves out."""
TEMPLATES = Path(__file__).with_name("voila")
SOCKET_FOLDER_BYTES = 103 - len("/voila_12345678/kernel-12345678-1234-1234-1234-123456789012-ipc-1")
"""What macOS lets a socket's path have (Linux 107), less what Voila and Jupyter put behind the folder."""


def write_page(folder: Path, run: Path, parameters: dict[str, str]) -> Path:
    """Notebook 06 with these parameters, see `given`, without what only its readers need."""
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOK)), given(run, parameters))
    name = run.resolve().name if run.is_dir() else "no run yet"
    notebook.cells = [cell for cell in notebook.cells if NOTEBOOK_ONLY not in cell.metadata.get("tags", [])]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"# Explorer · {_plain_markdown(name)}"))
    notebook.metadata["title"] = f"Explorer · {name}"
    path = folder / "explorer.ipynb"
    nbformat.write(notebook, path)
    return path


def given(run: Path, parameters: dict[str, str]) -> dict[str, str]:
    """The parameters of notebook 06, with RUN_DIR only where the run is there."""
    return ({"RUN_DIR": str(run)} if run.is_dir() else {}) | parameters


def _plain_markdown(text: str) -> str:
    """A text that Markdown and HTML show as it is."""
    return "".join(letter if letter.isalnum() or letter in " -." else f"&#{ord(letter)};" for letter in text)


def serve(run: Path, parameters: dict[str, str], port: int, place: Place) -> None:
    """Serve the page until interrupted; prints its address with the token. A port in use is replaced by another.

    place: what the printed address opens; any other by its query, see `links`. Raises ConfigError where there is no
    folder for the kernels' sockets, ValueError for a run that is broken, as each page would fail, and for a picture
    that nothing is asked about.
    """
    sockets = find_socket_folder()
    frames, records, _ = read_run(make_config(given(run, parameters), ExplorerConfig))
    if place.picture:
        find_picture(place.picture, (name for name in by_picture(records) if name in frames.by_image_file))
    lead_to_this_library()
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(TEMPLATES), *filter(None, [os.environ.get("JUPYTER_PATH")])])
    from stkvlm_lib.explore.server import ExplorerServer  # only now: Voila reads the paths just set

    with (
        tempfile.TemporaryDirectory(prefix="explorer-", dir=sockets) as folder,
        closing(ModelHost(Path(folder))) as host,
    ):
        os.environ[ADDRESS_VARIABLE] = str(host.address)
        token = secrets.token_urlsafe(24)
        server = ExplorerServer(token=token, ip=ADDRESS, port=port, open_browser=False, log_level="ERROR")
        server.place = place
        path = write_page(Path(folder), run, parameters)
        server.initialize([str(path), "--template=explorer", "--theme=light", "--show_tracebacks=True"])
        server.set_up(sockets)
        server.start()


def find_socket_folder() -> str:
    """The first folder for temporary files that is short enough: a socket's path may have no more than 103 bytes.

    Raises ConfigError where there is none.
    """
    usual = tempfile.gettempdir()
    for folder in filter(None, (usual, os.environ.get("XDG_RUNTIME_DIR"), "/tmp")):
        if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ConfigError(
        f"{usual}: too long a path for the sockets of the explorer; set TMPDIR to a folder of at most "
        f"{SOCKET_FOLDER_BYTES} characters"
    )
