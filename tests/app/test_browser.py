"""The page in a real browser: what one clicks, what one sees, and what one takes home."""

import base64
import gzip
import json
import re
import struct
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.app.conftest import Client
from tests.conftest import write_brats

pytestmark = pytest.mark.browser
WAIT = 240_000  # ms; a busy machine draws 3-D in software slowly
TOTAL = "nv.drawBitmap.reduce((a, b) => a + b)"


@pytest.fixture
def page(browser, app_address, request):
    """A page whose errors, and requests to anywhere else, fail the test at its end."""
    pixels = getattr(request, "param", 1)  # of the screen for one of the page
    context = browser.new_context(
        viewport={"width": 1200, "height": 640}, device_scale_factor=pixels
    )
    context.set_default_timeout(WAIT)
    page, wrong = context.new_page(), []
    host = app_address.split("/")[2]
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "response",
        lambda got: got.status not in (200, 304, 400) and wrong.append((got.status, got.url)),
    )
    page.on("console", lambda said: _is_mistake(said) and wrong.append(said.text))
    page.on(
        "request",
        lambda asked: (
            asked.url.startswith(("blob:", "data:", f"http://{host}/")) or wrong.append(asked.url)
        ),
    )
    page.goto(app_address)
    page.wait_for_selector("html[data-started]")
    yield page
    context.close()
    assert not wrong


def _is_mistake(said: Any) -> bool:
    return said.type == "error" and "status of 400" not in said.text  # a refusal, which is shown


def until(page: Any, expression: str) -> None:
    """Wait for an expression. Playwright's own wait needs eval, which the page's policy forbids."""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def in_viewer(page: Any, expression: str, canvas: str = "view-a") -> Any:
    """Return what an expression over NiiVue, `nv`, says."""
    return page.evaluate(f"(() => {{ const nv = document.getElementById('{canvas}').niivue; "
                         f"return {expression}; }})()")  # fmt: skip


def voxels(page: Any, array: str, canvas: str = "view-a") -> np.ndarray:
    """Return an array of bytes that NiiVue holds. As a list Playwright needs 40 s for it."""
    text = f"btoa(Array.from({array}, v => String.fromCharCode(v)).join(''))"
    return np.frombuffer(base64.b64decode(in_viewer(page, text, canvas)), np.uint8)


def jobs(page: Any) -> Any:
    return page.evaluate("fetch('api/state').then(r => r.json()).then(s => s.jobs)")


def saved(page: Any, what: str) -> nib.Nifti1Image:
    with page.expect_download() as download:
        page.click(f"#downloads a[href$='/{what}']")
    return nib.Nifti1Image.from_bytes(gzip.decompress(download.value.path().read_bytes()))


def test_example_from_the_first_click_to_the_corrected_label(page):
    page.select_option("#view", "axial")  # 3-D in software takes seconds for each picture
    page.click("#example")
    page.wait_for_selector("#jobs progress")
    page.wait_for_selector("#findings:not([hidden])")
    assert page.locator("#volumes tbody tr").count() == 5
    assert "Research use only" in page.inner_text("header")
    label = saved(page, "label")
    _check_view(page, np.asarray(label.dataobj))
    _check_compare(page)
    _check_drawing(page, label)
    page.reload()
    page.wait_for_selector("#findings:not([hidden])")
    assert page.locator("#jobs li").count() == 2
    assert "corrected" in page.inner_text("#downloads")


def _check_view(page: Any, label: np.ndarray) -> None:
    """The layer holds the label; classes can be switched off, lesions are jumped to."""
    shown = voxels(page, "nv.volumes[1].img")
    ours = np.where(label == 4, 3, label)  # the page's own ids
    assert np.array_equal(shown, ours.ravel("F"))
    page.click("#classes button >> nth=0")
    until(page, "document.querySelector('#classes button').ariaPressed === 'false'")
    until(page, "document.getElementById('view-a').niivue.volumes[1].colormapLabel.lut[7] === 0")
    page.click("#classes button >> nth=0")
    page.click("#lesions button >> nth=0")
    assert "mm" in page.inner_text("#location")
    until(page, "document.getElementById('values').textContent.includes('truth: ')")
    told = page.inner_text("#values")
    assert re.match(r"FLAIR [\d.]+, T1 [\d.]+, T1ce [\d.]+, T2 [\d.]+ · prediction: [NE]", told)
    place = page.inner_text("#location")
    page.locator("#view-a").press("PageUp")
    until(page, f"document.getElementById('location').textContent !== {json.dumps(place)}")
    page.select_option("#layer", "probability-0")
    until(page, "document.getElementById('legend').textContent.includes('100')")
    page.select_option("#modality", label="T1ce")
    until(page, "document.getElementById('location').textContent.includes('T1ce')")


def _check_compare(page: Any) -> None:
    page.select_option("#runs", label="other")
    page.click("#predict")
    page.wait_for_selector("#jobs li:nth-child(2).on")
    page.select_option("#compare", label="volumes")
    page.wait_for_selector("#second:not([hidden])")
    page.wait_for_selector("#comparison td")
    page.select_option("#layer", label="difference of A and B")
    page.wait_for_selector("#legend >> text=only A")
    page.click("#lesions button >> nth=0")
    places = [in_viewer(page, "Array.from(nv.scene.crosshairPos)", c) for c in ("view-a", "view-b")]
    assert places[0] == pytest.approx(places[1], abs=0.02)
    page.select_option("#compare", "")


def _check_drawing(page: Any, label: nib.Nifti1Image) -> None:
    """What is drawn, undone and drawn again is what the file holds, voxel for voxel.

    Neither another prediction nor another scan takes the place of the one that is drawn on.
    """
    page.evaluate("fetch('api/example', { method: 'POST' }).then(() => 0)")
    page.click("#correct")
    page.wait_for_selector("#drawbar:not([hidden])")
    page.click("#pens >> text=ET")
    box = page.locator("#view-a").bounding_box()
    before = voxels(page, "nv.drawBitmap")
    twice = int(before.sum())
    for down in (0.35, 0.6):
        _stroke(page, box, down)
        twice = _changed(page, twice)
    page.click("#undo")
    once = _changed(page, twice)
    in_viewer(page, "nv.moveCrosshairInVox(0, 0, 3)")
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    _stroke(page, box, 0.35)
    thrice = _changed(page, once)
    page.click("#between")
    _changed(page, thrice)
    drawn = voxels(page, "nv.drawBitmap")
    assert len({before.sum(), once, twice}) == 3
    slices = np.flatnonzero((drawn != before).reshape(label.shape[2], -1).any(axis=1))
    assert slices.tolist() == list(range(slices[0], slices[0] + 4))
    scan = page.input_value("#scans")
    page.click("#jobs li:nth-child(1) button")
    page.wait_for_selector("#alert >> text=save it or leave it first")
    page.click("#alert button")
    page.select_option("#scans", index=1)
    page.wait_for_selector("#alert >> text=save it or leave it first")
    assert page.input_value("#scans") == scan
    page.click("#save")
    page.wait_for_selector("#downloads >> text=corrected label")
    corrected = nib.as_closest_canonical(saved(page, "corrected"))  # NiiVue draws in RAS
    found = np.asarray(corrected.dataobj)
    assert np.array_equal(np.where(found == 4, 3, found).ravel("F"), drawn)
    assert label.shape == corrected.shape
    assert [job["corrected"] is None for job in jobs(page)] == [True, False]


def _changed(page: Any, before: int) -> int:
    """Wait until the drawing is another one; a busy machine draws a stroke after a while."""
    until(page, f"document.getElementById('view-a').niivue.{TOTAL[3:]} !== {before}")
    return int(in_viewer(page, TOTAL))


def _stroke(page: Any, box: dict, down: float) -> None:
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] * down)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * down, steps=4)
    page.mouse.up()


def test_scan_that_lacks_a_modality_is_told_so_and_then_sent(page, app_address, tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    hostile = tmp_path / "<img src=x onerror=alert(1)>_t2.nii.gz"
    (folder / "case_t2.nii.gz").rename(hostile)
    files = [str(path) for path in sorted(folder.iterdir())]
    page.set_input_files("#files", files)
    page.wait_for_selector("#lacking.bad >> text=has no T2")
    assert page.is_disabled("#tray [type=submit]")
    page.set_input_files("#files", [*files, str(hostile)])
    page.wait_for_selector("#lacking >> text=Nothing is missing")
    page.click("#tray [type=submit]")
    page.wait_for_selector("#jobs li")
    page.reload()  # in the middle
    page.wait_for_selector("#findings:not([hidden])")
    assert page.locator("#volumes th").count() == 7  # with scores, as the truth came along
    assert page.locator("img").count() == 0
    assert Client(app_address).ask("GET", "/api/state")["scans"] == []
    assert jobs(page)[0]["state"] == "done"


def write_dicom(folder: Path, description: str, number: int, volume: np.ndarray) -> None:
    """Write a volume (D, H, W) as one DICOM file for each slice, with a patient's name in it."""
    folder.mkdir()

    def text(value: Any) -> bytes:
        raw = str(value).encode()
        return raw + b" " * (len(raw) % 2)

    def part(group: int, element: int, kind: bytes, value: bytes) -> bytes:
        head = struct.pack("<HH2s", group, element, kind)
        if kind in (b"OB", b"OW"):
            return head + struct.pack("<HI", 0, len(value)) + value
        return head + struct.pack("<H", len(value)) + value

    def short(value: int) -> bytes:
        return struct.pack("<H", value)

    for place, pixels in enumerate(volume):
        root, rows, columns = "1.2.3.4", *pixels.shape
        meta = part(2, 2, b"UI", text("1.2.840.10008.5.1.4.1.1.4"))
        meta += part(2, 3, b"UI", text(f"{root}.{number}.{place}"))
        meta += part(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
        body = b"".join(
            [
                part(8, 0x16, b"UI", text("1.2.840.10008.5.1.4.1.1.4")),
                part(8, 0x18, b"UI", text(f"{root}.{number}.{place}")),
                part(8, 0x60, b"CS", text("MR")),
                part(8, 0x70, b"LO", text("Nobody")),
                part(8, 0x103E, b"LO", text(description)),
                part(0x10, 0x10, b"PN", text("Doe^Jane")),
                part(0x18, 0x50, b"DS", text(2)),
                part(0x18, 0x88, b"DS", text(2)),
                part(0x20, 0xD, b"UI", text(root)),
                part(0x20, 0xE, b"UI", text(f"{root}.{number}")),
                part(0x20, 0x11, b"IS", text(number)),
                part(0x20, 0x12, b"IS", text(1)),
                part(0x20, 0x13, b"IS", text(place + 1)),
                part(0x20, 0x32, b"DS", text(f"0\\0\\{2 * place}")),
                part(0x20, 0x37, b"DS", text("1\\0\\0\\0\\1\\0")),
                part(0x28, 2, b"US", short(1)),
                part(0x28, 4, b"CS", text("MONOCHROME2")),
                part(0x28, 0x10, b"US", short(rows)),
                part(0x28, 0x11, b"US", short(columns)),
                part(0x28, 0x30, b"DS", text("1\\1")),
                part(0x28, 0x100, b"US", short(16)),
                part(0x28, 0x101, b"US", short(16)),
                part(0x28, 0x102, b"US", short(15)),
                part(0x28, 0x103, b"US", short(1)),
                part(0x7FE0, 0x10, b"OW", pixels.astype("<i2").tobytes()),
            ]
        )
        meta = part(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
        (folder / f"{place:03d}").write_bytes(bytes(128) + b"DICM" + meta + body)


def test_dicom_is_converted_before_it_is_sent(page, tmp_path, phantoms):
    sent = []
    page.on("request", lambda asked: asked.method == "PUT" and sent.append(asked))
    series = {"AX T1 Jane": 1, "AX FLAIR Jane": 0, "AX T1Gd Jane": 2}
    for number, (description, channel) in enumerate(series.items(), start=1):
        write_dicom(tmp_path / str(number), description, number, phantoms[0][0][..., channel])
    page.select_option("#runs", label="slices")
    page.set_input_files("#folder", str(tmp_path))
    page.wait_for_selector("#lacking >> text=Nothing is missing")
    page.click("#tray [type=submit]")
    page.wait_for_selector("#findings:not([hidden])")
    assert len(sent) == 3
    assert not any(b"Jane" in (asked.post_data_buffer or b"") for asked in sent)
    assert not any("jane" in asked.url.lower() for asked in sent)


def test_picture_and_garbage(page, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(1, 255, (20, 26)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    Path(tmp_path / "broken.nii.gz").write_bytes(b"nothing of the kind")
    page.select_option("#runs", label="pictures")
    page.set_input_files("#files", str(tmp_path / "slice.png"))
    page.click("#tray [type=submit]")
    page.wait_for_selector("#findings:not([hidden])")
    page.set_input_files("#files", str(tmp_path / "broken.nii.gz"))
    page.select_option("#tray select", "all")
    page.click("#tray [type=submit]")
    page.wait_for_selector("#alert:not([hidden])")
    assert "broken.nii" in page.inner_text("#alert") and "/" not in page.inner_text("#alert")


def test_without_webgl_the_server_draws_the_planes(browser, app_address):
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = context.new_page()
    page.goto(app_address)
    page.wait_for_selector("html[data-started]")
    page.click("#example")
    page.wait_for_selector("#findings:not([hidden])", timeout=WAIT)
    page.click("#lesions button >> nth=0")
    until(page, "[...document.querySelectorAll('#planes img')].every(i => i.naturalWidth > 50)")
    assert page.locator("#planes img").count() == 3 and page.is_disabled("#correct")
    context.close()


SAGITTAL = np.array([[0, 0, 1, -9], [-1, 0, 0, 20], [0, 1, 0, -30], [0, 0, 0, 1]], float)
"""Axes of a file that grow to the back, upwards and to the right."""


@pytest.mark.parametrize("page", [2], indirect=True)
def test_unet_and_sam_side_by_side_and_sam_where_one_points(page, tmp_path, phantoms):
    page.select_option("#view", "axial")
    page.select_option("#runs", label="slices")
    folder = write_brats(tmp_path, "case", phantoms[0], affine=SAGITTAL)
    page.set_input_files("#files", [str(path) for path in folder.iterdir()])
    page.wait_for_selector("#lacking >> text=Nothing is missing")
    page.click("#tray [type=submit]")
    page.wait_for_selector("#findings:not([hidden])")
    page.select_option("#runs", label="sam")
    page.click("#predict")
    page.wait_for_selector("#jobs li:nth-child(2).on")
    page.select_option("#compare", label="slices")
    page.wait_for_selector("#comparison td")
    until(page, "document.getElementById('view-b').niivue?.volumes.length === 2")
    for canvas, number in (("view-a", 1), ("view-b", 0)):
        address = f"{page.url}api/jobs/{jobs(page)[number]['id']}/download/label"
        label = nib.Nifti1Image.from_bytes(gzip.decompress(page.request.get(address).body()))
        inside = np.asarray(label.dataobj).ravel("F") > 0
        assert np.array_equal(voxels(page, "nv.volumes[1].img", canvas) > 0, inside)
        assert 0 < inside.mean() < 1
    page.click("#correct")
    page.wait_for_selector("#prompts:not([hidden])")
    pointer = _Pointer(page)
    page.click("#tool-point")
    pointer.check((6, 9, 11))
    pointer.check((6, 9, 11), act=lambda: page.locator("#view-a").press("Enter"))
    in_viewer(page, "nv.setPan2Dxyzmm([2, -3, 0, 1.7])")
    pointer.check((7, 12, 11))
    in_viewer(page, "nv.setPan2Dxyzmm([0, 0, 0, 1])")
    page.select_option("#view", "coronal")
    until(page, "document.getElementById('view-a').niivue.opts.sliceType === 1")
    pointer.check((12, 10, 9))
    page.click("#tool-box")
    pointer.drag((5, 10, 9), (8, 10, 12))
    page.wait_for_selector("#alert >> text=Draw the box on an axial slice")
    page.select_option("#view", "axial")
    until(page, "document.getElementById('view-a').niivue.opts.sliceType === 0")
    pointer.check((3, 15, 4), (12, 6, 4))
    _check_phone(page, pointer)


def _check_phone(page: Any, pointer: "_Pointer") -> None:
    """A finger draws a box, too; one that goes beyond the slice ends at its edge."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#view-a").scroll_into_view_if_needed()
    until(page, "(c => c.width === 2 * c.clientWidth)(document.getElementById('view-a'))")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    tool = page.context.new_cdp_session(page)

    def drag() -> None:
        start, end = pointer.place((4, 16, 7)), pointer.place((14, 3, 7))
        ways = [("Start", start), ("Move", end), ("Move", (389, end[1] + 300)), ("End", None)]
        for kind, place in ways:
            points = [] if place is None else [{"x": place[0], "y": place[1]}]
            tool.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    pointer.check((4, 16, 7), (0, 0, 7), act=drag)  # right in the picture is left in the head


class _Pointer:
    """A hand that points at voxels (i, j, k) of a drawing, which grow to right, front and top."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.shape = in_viewer(page, "Array.from(nv.back.dimsRAS.slice(1, 4))")

    def place(self, voxel: tuple[int, int, int]) -> tuple[float, float]:
        """Return where in the window a voxel's middle is seen, in a slice that is shown now."""
        share = [(at + 0.5) / size for at, size in zip(voxel, self.shape, strict=True)]
        in_viewer(self.page, f"nv.scene.crosshairPos = {share}")
        in_viewer(self.page, "nv.drawScene()")
        scale = in_viewer(self.page, "nv.canvas.clientWidth / nv.canvas.width")
        x, y = in_viewer(self.page, f"nv.frac2canvasPos({share})")
        box = self.page.locator("#view-a").bounding_box()
        return box["x"] + x * scale, box["y"] + y * scale

    def drag(self, *voxels: tuple[int, int, int]) -> None:
        """Press the mouse at the first voxel and let it go at the last."""
        (x, y), end = self.place(voxels[0]), self.place(voxels[-1])
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=3)
        self.page.mouse.up()

    def check(self, *corners: tuple[int, int, int], act: Any = None) -> None:
        """Point; SAM is asked at those voxels, and its answer is drawn there, and undone."""
        total = f"document.getElementById('view-a').niivue.{TOTAL[3:]}"
        before = voxels(self.page, "nv.drawBitmap")
        with self.page.expect_response("**/prompt") as answer:
            act() if act else self.drag(*corners)
        width, height, _ = self.shape
        asked = [[k, height - 1 - j, width - 1 - i] for i, j, k in corners]
        assert answer.value.request.post_data_json["corners"] == asked
        bits = np.unpackbits(np.frombuffer(answer.value.body(), np.uint8))[: height * width]
        drawn = before.reshape(self.shape[::-1]).copy()
        drawn[corners[0][2]][bits.reshape(height, width)[::-1, ::-1] > 0] = 1
        assert not np.array_equal(drawn.ravel(), before)
        until(self.page, f"{total} !== {before.sum()}")
        assert np.array_equal(voxels(self.page, "nv.drawBitmap"), drawn.ravel())
        self.page.click("#undo")
        until(self.page, f"{total} === {before.sum()}")
        assert np.array_equal(voxels(self.page, "nv.drawBitmap"), before)
