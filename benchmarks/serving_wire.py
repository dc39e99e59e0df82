"""`python -m benchmarks serving_wire`: bytes and seconds of a whole case to a server and back.

240 x 240 x 155 voxels, four modalities: BraTS2021_00006 where it is there (../shared/data), else a
phantom of this size. The server is `kerasseg serve` with a model that does next to nothing, so that
the ways are compared and not the networks. Bytes of request and answer are counted by a relay
between the two; the time is taken without it, from the array to the labels. A process of its own
for each way: `python -m benchmarks.serving_wire ask grpc_bytes_gzip case.npy PORT` is one.
`python -m benchmarks.serving_wire imports` imports the stubs with and without TensorFlow.
"""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.serving_load import write_model_elsewhere
from benchmarks.serving_process import serving
from benchmarks.subprocess_json import measure

MODULE = "benchmarks.serving_wire"
CASE = Path(__file__).parents[2] / "shared" / "data" / "brats21"
WAYS = {
    "grpc_bytes_gzip": "gRPC, segment_bytes, gzip",
    "grpc_bytes": "gRPC, segment_bytes, not compressed",
    "grpc_floats": "gRPC, segment, float32",
    "rest_bytes_gzip": "REST, segment_bytes, gzip in base64",
    "rest_json": "REST, segment, JSON",
}


def run() -> str:
    """Return a Markdown table of all ways."""
    measured = {}
    with tempfile.TemporaryDirectory(prefix="kerasseg-bench-") as folder:
        path = Path(folder) / "case.npy"
        kind = measure(MODULE, "prepare", str(path))["case"]
        write_model_elsewhere(Path(folder) / "models" / "kerasseg" / "1")
        with serving(Path(folder) / "models") as server:
            for way in WAYS:
                port = server.grpc if way.startswith("grpc") else server.rest
                with relay(port) as (counted, relayed):
                    measure(MODULE, "ask", way, str(path), str(relayed))
                timed = measure(MODULE, "ask", way, str(path), str(port))
                measured[way] = (sum(counted) / 1e6, timed["seconds"])
    whole = measured["rest_json"]
    rows = [
        f"| {WAYS[way]} | {megabytes:.1f} MB | {megabytes / whole[0]:.3f} | {seconds:.2f} s | "
        f"{seconds / whole[1]:.3f} |"
        for way, (megabytes, seconds) in measured.items()
    ]
    return (
        f"## A whole case to the server and back, {kind}\n\n"
        "| | both ways on the wire | of JSON's | time | of JSON's |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
    )


@contextmanager
def relay(port: int) -> Iterator[tuple[list[int], int]]:
    """Yield the bytes so far, there and back, and a port that passes all on to `port`."""
    counted = [0, 0]
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(source: socket.socket, sink: socket.socket, way: int) -> None:
        try:
            while data := source.recv(2**20):
                counted[way] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other end hung up

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for source, sink, way in ((near, far, 0), (far, near, 1)):
                threading.Thread(target=pass_on, args=(source, sink, way), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield counted, listener.getsockname()[1]
    finally:
        listener.close()


def prepare(path: Path) -> dict[str, str]:
    """Write the raw case (D, H, W, 4) float32; return its name under the key "case"."""
    if CASE.is_dir():
        from kerasseg.config.load import load_experiment
        from kerasseg.datasets.discovery import discover

        options = ["data.layout=brats_nifti", f"data.root={CASE}"]
        source = discover(load_experiment(None, options).data)[0]
        np.save(path, source.load().image)
        return {"case": source.case_id}
    from kerasseg import anatomy
    from kerasseg.datasets.phantom import make_phantom

    image, _ = make_phantom(anatomy.BRATS_SHAPE, seed=0, index=0)
    np.save(path, np.rint(image))
    return {"case": "a phantom"}


def ask(way: str, image: np.ndarray, port: int) -> dict[str, float]:
    """Return the seconds from the array to the labels, by the same client whatever the way."""
    from kerasseg.serving.client import Client

    compression = "gzip" if way.endswith("gzip") else "none"
    with Client(
        f"127.0.0.1:{port}",
        rest=way.startswith("rest"),
        compression=compression,  # type: ignore[arg-type]
        retries=0,
    ) as client:
        spacing = np.ones(3, np.float32)
        inputs = {"volume": image, "spacing": spacing, "probabilities": np.array(False)}
        client.call("metadata", {"request": ""})  # connects
        started = time.perf_counter()
        if "bytes" in way:
            labels = client.predict(image).label > 0
        else:
            labels = np.asarray(client.call("segment", inputs)["labels"]) > 0
        seconds = time.perf_counter() - started
    assert np.array_equal(labels, image[..., 0] > 100)
    return {"seconds": seconds}


def imports() -> str:
    """Return how long importing the stubs takes in a fresh process, both ways."""
    code = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    light = "from kerasseg.serving.protocol import serving_apis; serving_apis()"
    plain = "from tensorflow_serving.apis import prediction_service_pb2_grpc"
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", code.format(each)], text=True))
        for each in (light, plain)
    ]
    return f"stubs: {seconds[0]:.2f} s as kerasseg does, {seconds[1]:.2f} s with TensorFlow"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["imports"]:
            print(imports())
        case ["prepare", path]:
            print(json.dumps(prepare(Path(path))))
        case ["ask", way, path, port]:
            print(json.dumps(ask(way, np.load(path), int(port))))
        case _:
            sys.exit(__doc__)
