"""The page as a visitor's browser asks for it: scans in, labels and numbers out."""

import asyncio
import gzip
import hashlib
import io
import json
import re
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.app import routes
from kerasseg.app.sessions import Sessions
from kerasseg.errors import UserError
from kerasseg.metrics.overlap import Overlap
from kerasseg.serving.server.limits import MIB, Limits
from tests.app.conftest import Client
from tests.conftest import write_brats
from tests.program import run_program

AFFINE = np.array([[0, 2, 0, 5], [-1, 0, 0, 9], [0, 0, 1.5, -3], [0, 0, 0, 1]], float)
"""Axes that are turned, and voxels of three different sizes."""


def brats_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def send_all(client: Client, files: dict[str, bytes]) -> None:
    guessed = client.ask("POST", "/api/look", {"files": {n: len(b) for n, b in files.items()}})
    for entry in guessed:
        client.put_file(entry["name"], files[entry["name"]], entry["role"])


def read(data: bytes) -> np.ndarray:
    image = nib.Nifti1Image.from_bytes(data if data[:2] != b"\x1f\x8b" else _unpacked(data))
    return np.asarray(image.dataobj)


def _unpacked(data: bytes) -> bytes:
    return gzip.decompress(data)


def test_case_equals_what_predict_writes(client, app_runs, tmp_path, phantoms):
    folder = write_brats(tmp_path / "in", "case", phantoms[0], affine=AFFINE)
    send_all(client, brats_files(folder))
    scan = client.ask("POST", "/api/scans", {})
    assert scan["name"] == "case" and scan["truth"]
    job = client.predict(scan["id"], uncertainty=True)
    assert job["state"] == "done", job
    run_program(["-m", "kerasseg", "predict", app_runs["volumes"], folder, "-o", tmp_path / "out"])
    expected = nib.load(tmp_path / "out" / "case.nii.gz")

    status, headers, label = client.send("GET", f"/api/jobs/{job['id']}/download/label")

    assert status == 200 and headers["content-disposition"] == 'attachment; filename="case.nii.gz"'
    found = nib.Nifti1Image.from_bytes(_unpacked(label))
    assert np.array_equal(found.dataobj, expected.dataobj)
    assert np.array_equal(found.affine, expected.affine)
    _check_numbers(job, np.asarray(expected.dataobj), phantoms[0][1], AFFINE)
    _check_values(client, scan, job)
    _check_files(client, job)
    _check_correction(client, job, np.asarray(expected.dataobj))


def _check_numbers(job: dict, label: np.ndarray, truth: np.ndarray, affine: np.ndarray) -> None:
    measures, voxel = job["measures"], abs(np.linalg.det(affine[:3, :3])) / 1000
    assert measures["volumes"]["WT"] == pytest.approx(np.count_nonzero(label) * voxel)
    assert measures["volumes"]["ET"] == pytest.approx(np.count_nonzero(label == 4) * voxel)
    assert set(measures["scores"]) == {"NCR", "ED", "ET", "WT", "TC"}
    whole = measures["scores"]["WT"]
    ours = truth.transpose(2, 1, 0) > 0  # write_brats stores (x, y, z) so
    counted = Overlap.count(ours, label > 0, ours.size)
    assert whole["dice"] == pytest.approx(counted.dice)
    assert whole["precision"] == pytest.approx(counted.precision)
    assert sum(lesion["volume"] for lesion in measures["lesions"]) == pytest.approx(
        measures["volumes"]["WT"], rel=0.05
    ) or measures["number"] > len(measures["lesions"])
    x, y, z = np.rint(np.linalg.inv(affine) @ [*measures["lesions"][0]["position"], 1])[:3]
    assert label[int(x), int(y), int(z)] > 0


def _check_values(client: Client, scan: dict, job: dict) -> None:
    """At a lesion's voxel there are all intensities of the files, and both classes."""
    lesion = job["measures"]["lesions"][0]
    d, h, w = lesion["place"]
    to_voxel = np.array(scan["to_voxel"])
    assert np.allclose(to_voxel @ [*lesion["position"], 1], [d, h, w])
    path = f"/api/scans/{scan['id']}/values?d={d}&h={h}&w={w}&job={job['id']}"
    found = client.ask("GET", path)
    assert [title for title, _ in found["intensities"]] == ["FLAIR", "T1", "T1ce", "T2"]
    planes = [read(client.send("GET", f"/api/scans/{scan['id']}/{m}.nii.gz")[2]) for m in range(4)]
    x, y, z = np.rint(np.linalg.inv(AFFINE) @ [*lesion["position"], 1])[:3].astype(int)
    assert [value for _, value in found["intensities"]] == [
        pytest.approx(float(plane[x, y, z])) for plane in planes
    ]
    label = read(client.send("GET", f"/api/jobs/{job['id']}/label.nii.gz")[2])[x, y, z]
    truth = read(client.send("GET", f"/api/scans/{scan['id']}/truth.nii.gz")[2])[x, y, z]
    assert (found["label"], found["truth"]) == (anatomy.LABELS[label], anatomy.LABELS[truth])
    assert found["label"] != "background"
    assert "no such voxel" in client.refused("GET", path.replace(f"d={d}", "d=-1"))


def _check_files(client: Client, job: dict) -> None:
    at = f"/api/jobs/{job['id']}"
    table = client.send("GET", f"{at}/download/csv")[2].decode()
    assert table.startswith("name,volume_ml,dice") and "lesion 1" in table
    facts = json.loads(client.send("GET", f"{at}/download/json")[2])
    assert facts["research_use_only"] and facts["measures"] == job["measures"]
    report = client.send("GET", f"{at}/download/report")[2].decode()
    assert "Research use only" in report and "data:image/png;base64" in report
    assert "http://" not in report and "https://" not in report
    maps = zipfile.ZipFile(io.BytesIO(client.send("GET", f"{at}/download/probabilities")[2]))
    assert maps.namelist() == [f"case_probability_{c}.nii.gz" for c in anatomy.REGIONS]
    percent = read(client.send("GET", f"{at}/probability-0.nii.gz")[2])
    exact = read(maps.read("case_probability_WT.nii.gz"))
    assert np.abs(percent / 100 - exact).max() <= 0.0051
    assert read(client.send("GET", f"{at}/entropy.nii.gz")[2]).max() <= 100
    errors = read(client.send("GET", f"{at}/errors.nii.gz")[2])
    assert errors.max() <= len(client.ask("GET", "/api/facts")["outcomes"])
    png = client.send("GET", f"/api/scans/{job['scan']}/plane.png?axis=0&index=3&job={job['id']}")
    assert png[2].startswith(b"\x89PNG")


def _check_correction(client: Client, job: dict, label: np.ndarray) -> None:
    view = nib.Nifti1Image.from_bytes(
        _unpacked(client.send("GET", f"/api/jobs/{job['id']}/label.nii.gz")[2])
    )
    drawn = np.asarray(view.dataobj).copy()
    drawn[:4, :5, :6] = anatomy.ET
    grid_of = nib.Nifti1Image(drawn, view.affine, view.header)
    corrected = client.ask("PUT", f"/api/jobs/{job['id']}/drawing", grid_of.to_bytes())["corrected"]
    file = client.send("GET", f"/api/jobs/{job['id']}/download/corrected")[2]
    expected = label.copy()
    expected[:4, :5, :6] = 4  # this case's own id of enhancing tumour
    assert np.array_equal(read(file), expected)
    assert corrected["volumes"]["ET"] > job["measures"]["volumes"]["ET"]
    drawn[0, 0, 0] = 9
    wrong = nib.Nifti1Image(drawn, view.affine, view.header).to_bytes()
    assert "other classes" in client.refused("PUT", f"/api/jobs/{job['id']}/drawing", wrong)


def test_two_predictions_of_the_example_differ_where_the_map_says(client):
    scan = client.ask("POST", "/api/example")
    first, second = (client.predict(scan["id"], run, threshold=0.4) for run in (0, 1))
    views = [
        read(client.send("GET", f"/api/jobs/{job['id']}/label.nii.gz")[2])
        for job in (first, second)
    ]
    path = f"/api/jobs/{first['id']}/difference-{second['id']}.nii.gz"
    kinds = read(client.send("GET", path)[2])
    assert np.array_equal(kinds == 3, (views[0] > 0) & (views[1] == 0))
    assert np.array_equal(kinds == 4, (views[0] == 0) & (views[1] > 0))


def test_a_visitor_sees_nothing_of_another(client, app_address):
    scan = client.ask("POST", "/api/example")
    stranger = Client(app_address)
    assert stranger.ask("GET", "/api/state")["scans"] == []
    assert "no such scan" in stranger.refused("GET", f"/api/scans/{scan['id']}/0.nii.gz")
    assert "no such scan" in stranger.refused("POST", "/api/jobs", {"scan": scan["id"]})
    stranger.cookie = "kerasseg_session=guessed"
    assert "session has ended" in stranger.refused("GET", "/api/state")


def test_cancelled_while_it_waits_or_runs(client):
    scan = client.ask("POST", "/api/example")
    jobs = [client.ask("POST", "/api/jobs", {"scan": scan["id"]}) for _ in range(2)]
    for job in reversed(jobs):
        client.ask("DELETE", f"/api/jobs/{job['id']}")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        states = {job["state"] for job in client.ask("GET", "/api/state")["jobs"]}
        if not states & {"waiting", "running"}:
            break
        time.sleep(0.1)
    assert states <= {"cancelled", "done"} and "cancelled" in states


def test_headers_and_other_hosts(client):
    _, headers, page = client.send("GET", "/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    assert headers["referrer-policy"] == "no-referrer" and headers["x-frame-options"] == "DENY"
    assert "httponly" in headers.get("set-cookie", "HttpOnly").lower()
    assert b"<script>" not in page and b"style=" not in page
    assert client.send("GET", "/", host="evil.example")[0] == 404
    assert client.send("POST", "/api/example", origin="http://evil.example")[0] == 404
    assert client.send("GET", "/static/..%2froutes.py")[0] == 404


def test_address_that_others_reach_needs_a_token_or_public(app_runs):
    from kerasseg.app.serve import PageAddress

    with pytest.raises(UserError, match="--token"):
        PageAddress("0.0.0.0").check()
    PageAddress("0.0.0.0", public=True).check()
    page = routes.Page(None, None, None, None, token="secret")

    class Asked:
        method, headers, cookies = "GET", {"host": "here"}, {}
        query_params: ClassVar[dict[str, str]] = {}
        url = type("Url", (), {"path": "/"})

    with pytest.raises(routes.Refusal, match="token"):
        routes._check_sender(Asked, page)
    Asked.query_params = {"token": "secret"}
    routes._check_sender(Asked, page)
    Asked.url.path, Asked.query_params = "/api/state", {"token": "secret"}
    with pytest.raises(routes.Refusal):
        routes._check_sender(Asked, page)


def asked(app, method: str, path: str, cookie: str, pieces: int) -> tuple[int, int]:
    """Ask the application with a body of that many pieces of half a MiB, without a Content-Length.

    Returns the status, and how many of the pieces it took.
    """
    taken, answers = 0, []
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    headers = [(b"content-type", b"application/json"), (b"cookie", cookie.encode())]

    async def receive():
        nonlocal taken
        if taken == pieces:
            await asyncio.sleep(60)  # nobody hangs up
        taken += 1
        return {"type": "http.request", "body": b" " * (MIB // 2), "more_body": taken < pieces}

    async def send(message):
        answers.append(message)

    # In a thread, as tests of the browser leave their own loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, app(scope | {"headers": headers}, receive, send)).result()
    return answers[0]["status"], taken


def test_body_that_is_too_large_or_a_stranger_s_is_not_read(tmp_path, monkeypatch):
    page = routes.Page(None, Sessions(tmp_path), None, Limits())
    app, cookie = routes.page_app(page), f"kerasseg_session={page.sessions.new().key}"
    for path in ("/api/look", "/api/scans", "/api/scans/key/prompt", "/api/jobs"):
        status, taken = asked(app, "POST", path, cookie, 64)
        assert status == 413 and taken <= 3
        assert asked(app, "POST", path, "kerasseg_session=guessed", 64) == (404, 0)
        assert asked(app, "POST", path, cookie, 1) == (400, 1)
    alone = []
    monkeypatch.setattr(routes.uploads, "receive", lambda *_: alone.append(page.load.locked()))
    assert asked(app, "PUT", "/api/files?name=a.nii", cookie, 1) == (200, 1)
    assert alone == [True]


def test_vendored_files_are_as_they_were_published():
    static = Path(routes.__file__).parent / "static"
    listed = re.findall(r"sha256 (\w{64}) (\S+)", (static / "VENDORED.txt").read_text())
    assert {name for _, name in listed} >= {"niivue.umd.js", "dcm2niix.jpeg.wasm"}
    for digest, name in listed:
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest, name
