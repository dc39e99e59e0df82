"""scripts/: what they start, with stand-ins for Slurm, Kubernetes and train.py; files for CI."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import kerasseg
from kerasseg.training.multi_worker import read_cluster

SCRIPTS = Path("scripts")
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$TF_CONFIG" "$@" > "python-$((RANDOM * 32768 + RANDOM)).txt"
exit "${EXIT_CODE:-0}"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then
  [[ "$2 $3" == "hostnames node[07-08]" ]] && printf 'node07\\nnode08\\n'
else
  echo "$@" >> scontrol.txt
fi
"""
SRUN = """#!/usr/bin/env bash
[[ $1 == --kill-on-bad-exit=0 ]] || exit 99
shift
for SLURM_NODEID in 0 1; do
  export SLURM_NODEID
  "$@"; status=$?
done
exit $status
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the scripts and the stand-ins."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for name, text in {"python": PYTHON, "scontrol": SCONTROL, "srun": SRUN}.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def run(place, *command, **environment):
    """Run a script; its exit code, and of each train.py TF_CONFIG and the arguments."""
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", *command],
        cwd=place,
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    started = []
    for noted in place.glob("python-*.txt"):
        config, *arguments = noted.read_text().splitlines()
        cluster = read_cluster({"TF_CONFIG": config})
        assert cluster is not None and arguments.pop(0) == "train.py"
        started.append((cluster.worker, cluster.addresses, arguments))
        noted.unlink()
    return done.returncode, sorted(started)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda p: p.name)
def test_bash_can_read_it(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)


def test_two_machines(place):
    addresses = ("host0:12345", "host1:12346")
    command = ("scripts/two_machines.sh", "1", *addresses, "--", "--config", "a b.yaml", "x.y=1")
    assert run(place, *command) == (0, [(1, addresses, ["--config", "a b.yaml", "x.y=1"])])
    assert run(place, "scripts/two_machines.sh", "0", *addresses) == (0, [(0, addresses, [])])


@pytest.mark.parametrize(
    ("restarts", "made", "resumes"),
    [
        ("0", "brats", False),
        ("1", "brats", True),
        ("1", "brats_fold2", True),
        ("1", "brats2", False),
        ("1", None, False),
    ],
)
def test_slurm(place, restarts, made, resumes):
    if made:
        (place / "runs" / made).mkdir(parents=True)
        (place / "runs" / made / "config.yaml").touch()
    slurm = {
        "SLURM_SUBMIT_DIR": str(place),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NAME": "brats",
        "SLURM_JOB_NODELIST": "node[07-08]",
        "SLURM_RESTART_COUNT": restarts,
    }
    addresses = ("node07:23456", "node08:23456")
    arguments = ["--resume"] * resumes + ["--config", "c.yaml", "run.root=runs", "run.name=brats"]
    both = [(worker, addresses, arguments) for worker in (0, 1)]
    command = ("scripts/slurm.sh", "--config", "c.yaml")
    assert run(place, *command, **slurm) == (0, both)
    assert run(place, *command, **slurm, EXIT_CODE="2") == (2, both)
    assert not (place / "scontrol.txt").exists()
    assert run(place, *command, **slurm, EXIT_CODE="143") == (143, both)
    assert (place / "scontrol.txt").read_text() == "requeue 123456\n"


@pytest.mark.parametrize("resumes", [False, True])
def test_kubernetes(place, resumes):
    service, job = yaml.safe_load_all((SCRIPTS / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == job["spec"]["template"]["metadata"]["labels"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(environment["WORKERS"])
    assert environment["JOB"] == job["metadata"]["name"]
    assert "/" not in container["image"], "of no registry"
    assert Path(container["args"][1]).exists()
    if resumes:
        (place / "runs" / environment["JOB"]).mkdir(parents=True)
        (place / "runs" / environment["JOB"] / "config.yaml").touch()
    hosts = [f"{environment['JOB']}-{i}.{service['metadata']['name']}" for i in range(2)]
    addresses = tuple(f"{host}:12345" for host in hosts)
    arguments = ["--resume"] * resumes + container["args"]
    arguments += [f"run.root={place}/runs", f"run.name={environment['JOB']}"]
    arguments += [f"records.root={place}/tfrecords/{environment['JOB']}"]
    shell, script = container["command"]
    assert shell == "bash"
    given = environment | {"SHARED": str(place)}
    as_job = run(
        place, script, *container["args"], **given, JOB_COMPLETION_INDEX="1", HOSTNAME="brats-1-x2k"
    )
    as_set = run(place, script, *container["args"], **given, HOSTNAME="brats-1")
    assert as_job == as_set == (0, [(1, addresses, arguments)])


def test_the_printed_json_is_what_it_should_be(place):
    printed = subprocess.check_output(
        ["bash", place / "scripts" / "tf_config.sh", "1", "a:1", "b:2"]
    )
    assert json.loads(printed) == {
        "cluster": {"worker": ["a:1", "b:2"]},
        "task": {"type": "worker", "index": 1},
    }


def test_one_version_everywhere():
    assert f'\nversion = "{kerasseg.__version__}"\n' in Path("pyproject.toml").read_text()
    cited = yaml.safe_load(Path("CITATION.cff").read_text())
    assert str(cited["version"]) == kerasseg.__version__


def test_github_runs_ci_for_every_python_and_for_the_oldest_versions():
    jobs = yaml.safe_load(Path(".github/workflows/ci.yml").read_text())["jobs"]
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert 'requires-python = ">=3.10,<3.14"' in Path("pyproject.toml").read_text()
    assert pythons == [f"3.{minor}" for minor in range(10, 14)]
    commands = {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in jobs.items()}
    assert commands["test"] == ["bash .ci/run"] and commands["weekly"] == ["bash .ci/weekly"]
    assert commands["lowest"] == ["make test-lowest"]
