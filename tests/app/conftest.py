"""One page with two runs that nobody trained, in a process of its own, and a small client."""

import http.client
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import keras
import pytest

from kerasseg.config.load import load_experiment
from tests.conftest import TINY
from tests.models.sam.test_sam_run import SAM
from tests.program import Program
from tests.run_folders import SLICES, SMALL, write_run

PATIENCE = 90.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
LIMITS = ("--file-mib", "8", "--scan-mib", "24")


class Client:
    """A browser without a page: it has a cookie, and asks for addresses."""

    def __init__(self, address: str) -> None:
        self.host, self.base = urlsplit(address).netloc, urlsplit(address).path.rstrip("/")
        self.cookie = ""
        status, headers, self.page = self.send("GET", "/")
        assert status == 200
        self.cookie = headers["set-cookie"].split(";")[0]

    def send(self, method: str, path: str, body: Any = None, **headers: str):
        """Return status, headers and bytes of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"content-type": "application/json", **headers}
        headers = {"cookie": self.cookie, **headers}
        connection.request(method, self.base + path, body, headers)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer that is no refusal."""
        status, _, found = self.send(method, path, body)
        assert status == 200, found
        return json.loads(found)

    def refused(self, method: str, path: str, body: Any = None) -> str:
        """Return the sentence of a refusal."""
        status, _, found = self.send(method, path, body)
        assert 400 <= status < 500, (status, found)
        return json.loads(found)["error"]

    def put_file(self, name: str, data: bytes, role: str = "") -> Any:
        """Send a file."""
        return self.ask("PUT", f"/api/files?name={quote(name)}&role={role}", data)

    def predict(self, scan: str, run: int = 0, **choices: Any) -> dict[str, Any]:
        """Return a job when it is finished."""
        job = self.ask("POST", "/api/jobs", {"scan": scan, "run": run, "choices": choices})
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            (found,) = [j for j in self.ask("GET", "/api/state")["jobs"] if j["id"] == job["id"]]
            if found["state"] not in ("waiting", "running"):
                return found
            time.sleep(0.1)
        raise AssertionError(f"not finished: {found}")


def started(arguments: list) -> tuple[Program, str]:
    """Start `kerasseg app` and return the process and the address that it says."""
    program = Program(["-m", "kerasseg", "app", *arguments, "--port", "0"])
    until = time.monotonic() + PATIENCE
    while "http://" not in program.stderr:
        assert program.poll() is None, program.stderr
        assert time.monotonic() < until, program.stderr
        time.sleep(0.05)
    return program, next(word for word in program.stderr.split() if word.startswith("http://"))


@pytest.fixture(scope="session")
def app_runs(shared_once) -> dict[str, Path]:
    """volumes: 3-D, regions of four modalities. other: with other weights.
    slices: 2-D, tumour of any kind in LGG. pictures: 2-D, grey pictures. sam: SAM, of FLAIR."""

    def build(root: Path) -> None:
        patch = "pipeline.patch_size=[32,48,48]"
        # With one block a level these weights find ET nearly everywhere: drawing changes little.
        blocks = ["model.encoder_blocks=2", "model.decoder_blocks=2"]
        brats = ["data.layout=brats_nifti", "data.root=gone"]
        lgg = ["data.layout=lgg", "data.root=gone", "model.target=binary"]
        pairs = ["data.layout=image_pairs", "data.root=gone", "model.target=binary"]
        experiments = {
            "volumes": load_experiment(None, [*TINY, *SMALL, *blocks, *brats, patch]),
            "other": load_experiment(None, [*TINY, *SMALL, *blocks, *brats, patch]),
            "slices": load_experiment(None, [*TINY, *SLICES, *lgg]),
            "pictures": load_experiment(None, [*TINY, *SLICES, *pairs, "data.size=[16,20]"]),
            "sam": load_experiment(None, [*SAM, *brats]),
        }
        for seed, (name, experiment) in enumerate(experiments.items()):
            write_run(root / name, experiment, seed)
        keras.backend.clear_session()

    root = shared_once("app_runs", build)
    return {name: root / name for name in ("volumes", "other", "slices", "pictures", "sam")}


@pytest.fixture(scope="session")
def app_address(app_runs) -> Iterator[str]:
    """Where the page is. It stops at SIGTERM, and leaves no file."""
    program, address = started([*app_runs.values(), *LIMITS])
    yield address
    folders = set(Path(tempfile.gettempdir()).glob("kerasseg-app-*"))
    program.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    assert folders - set(Path(tempfile.gettempdir()).glob("kerasseg-app-*")), "files are left"


@pytest.fixture
def client(app_address) -> Client:
    """A visitor of their own."""
    return Client(app_address)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, with WebGL2 in software. `.ci/run` installs it."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    with playwright.sync_playwright() as tool:
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        flags.append("--enable-unsafe-swiftshader")
        running = tool.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()
