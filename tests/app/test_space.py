"""Spaces: what `kerasseg space` writes, and that it starts from its own folder as it stands."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kerasseg.app import space
from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.run import read_run
from tests.app.conftest import PATIENCE, Client
from tests.own_environment import GRADIO, own_environment


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def started(
    arguments: list, folder: Path, python: str | Path = sys.executable, **settings: str
) -> tuple[subprocess.Popen, str]:
    """Start a program that sees the folder and the installed packages only."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | settings
    log = folder.parent / "log"
    with log.open("w") as file:
        program = subprocess.Popen(
            [python, *arguments],
            cwd=folder,
            env=environment | {"CUDA_VISIBLE_DEVICES": "-1"},
            stdout=file,
            stderr=file,
        )
    until = time.monotonic() + PATIENCE
    while not (found := re.search(r"http://0\.0\.0\.0:(\d+)", log.read_text())):
        assert program.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    return program, f"http://127.0.0.1:{found[1]}"


def check_predicts(client: Client) -> None:
    picture = io.BytesIO()
    Image.effect_noise((26, 20), 60).save(picture, "PNG")
    client.put_file("slice.png", picture.getvalue())
    job = client.predict(client.ask("POST", "/api/scans", {})["id"])
    assert job["state"] == "done", job


def test_docker_space_starts_by_its_own_command(app_runs, tmp_path):
    folder = tmp_path / "space"
    space.write_space([app_runs["pictures"]], folder, "docker")
    facts = front_matter(folder)
    assert facts["sdk"] == "docker" and facts["app_port"] == 7860
    pins = (folder / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.+]+", pin) for pin in pins)
    assert {pin.split("==")[0] for pin in pins} >= {"tensorflow", "fastapi", "uvicorn", "numpy"}
    assert "*.keras filter=lfs" in (folder / ".gitattributes").read_text()
    index = folder / "kerasseg" / "app" / "static" / "index.html"
    index.write_text(index.read_text() + "<!-- the Space's own -->")
    recipe = (folder / "Dockerfile").read_text()
    command = json.loads(re.search(r"^CMD (.*)", recipe, re.MULTILINE)[1])
    assert command[0] == "python" and "7860" in command

    program, address = started(["0" if w == "7860" else w for w in command[1:]], folder)

    try:
        client = Client(address)
        assert b"the Space's own" in client.page
        _, headers, _ = client.send("GET", "/")
        assert "frame-ancestors 'self' https://huggingface.co;" in (
            headers["content-security-policy"] + ";"
        )
        assert "x-frame-options" not in headers
        assert headers["set-cookie"].endswith("; SameSite=none; Secure; Partitioned")
        check_predicts(client)
    finally:
        program.terminate()
        program.wait()


def test_gradio_space_is_complete(app_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "pinned", lambda roots: [f"{root}==1" for root in roots])
    monkeypatch.setattr(space.metadata, "version", lambda name: "6.31.0")
    for _ in range(2):  # the second time over the first
        space.write_space([app_runs["volumes"]], tmp_path, "gradio")
    facts = front_matter(tmp_path)
    assert facts["sdk_version"] == "6.31.0" and facts["app_file"] == "app.py"
    assert facts["python_version"] == "{}.{}".format(*sys.version_info)
    assert not (tmp_path / "Dockerfile").exists() and (tmp_path / "LICENSE").exists()
    program = (tmp_path / "app.py").read_text()
    ast.parse(program)
    assert "gradio[mcp,oauth]==1" in (tmp_path / "requirements.txt").read_text()
    assert read_run(tmp_path / "runs" / "volumes").experiment.data.root == Path("gone")


@pytest.mark.all_only
def test_gradio_space_starts_and_predicts(app_runs, tmp_path):
    """In an environment with Gradio and the packages that it needs older than ours; it has all
    others, such as TensorFlow, from ours."""
    python, folder = own_environment(GRADIO), tmp_path / "space"
    (packages,) = python.parents[1].glob("lib/*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    command = [python, "-m", "kerasseg", "space", app_runs["pictures"], "--sdk", "gradio"]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*command, "--output", folder], check=True, env=here)
    assert f"\n{GRADIO.replace('[mcp,oauth]', '')}\n" in (folder / "requirements.txt").read_text()

    program, address = started(["app.py"], folder, python, GRADIO_SERVER_PORT="0")

    try:
        outer = urllib.request.urlopen(address).read()
        assert b"gradio" in outer and b"/page/" in outer
        check_predicts(Client(f"{address}/page"))
    finally:
        program.terminate()
        program.wait()


def test_what_a_run_tells_of_this_machine_is_left_out(app_runs, tmp_path):
    run = shutil.copytree(app_runs["volumes"], tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("root: gone", "root: /home/jane/patients"))
    known = {"command": "train.py /home/jane", "voxel_sizes": [[1], [2]]}
    (run / "environment.json").write_text(json.dumps(known))
    space._copy_run(read_run(run), tmp_path / "copy")
    assert read_run(tmp_path / "copy").experiment.data.root == Path("patients")
    del known["command"]
    assert json.loads((tmp_path / "copy" / "environment.json").read_text()) == known


def test_refusals(app_runs, tmp_path):
    run = app_runs["volumes"]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something other than a Space"):
        space.write_space([run], tmp_path, "docker")
    with pytest.raises(UserError, match="Two runs are called volumes"):
        space.write_space([run, run], tmp_path / "new", "docker")
    asked = shutil.copytree(app_runs["sam"], tmp_path / "asked")
    boxes = ["model.sam.prompt=box", f"model.sam.boxes_from={run}"]
    config = dump_experiment(load_experiment(asked / "config.yaml", boxes))
    (asked / "config.yaml").write_text(config)
    with pytest.raises(UserError, match=r"boxes_from=.*volumes, a folder that a Space would lack"):
        space.write_space([asked], tmp_path / "new", "docker")
    with pytest.raises(UserError, match=r"kerasseg-missing, which is missing here: pip install"):
        space.pinned(["kerasseg-missing"])
