"""TF_CONFIG: what is read from it, and every mistake in it."""

import json

import pytest

from kerasseg.errors import UserError
from kerasseg.training.multi_worker import Cluster, read_cluster
from tests.program import run_program

HOSTS = ["node0:12345", "node1:12345", "node2:12345"]


def config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize("index", [0, 2])
def test_workers_alone_are_numbered_as_listed(index):
    cluster = read_cluster(config({"worker": HOSTS}, index=index))
    tasks = (("worker", 0), ("worker", 1), ("worker", 2))
    assert cluster == Cluster(index, tuple(HOSTS), tasks)
    assert cluster.workers == 3


@pytest.mark.parametrize(("kind", "index", "number"), [("chief", 0, 0), ("worker", 1, 2)])
def test_a_chief_comes_before_the_workers(kind, index, number):
    listed = {"worker": HOSTS[1:], "chief": HOSTS[:1]}
    cluster = read_cluster(config(listed, kind, index))
    assert cluster == Cluster(number, tuple(HOSTS), (("chief", 0), ("worker", 0), ("worker", 1)))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": " "},
        config({"worker": HOSTS[:1]}),
        config({"chief": HOSTS[:1]}, "chief"),
        config({"chief": HOSTS[:1], "worker": []}, "chief"),
    ],
)
def test_without_others_there_is_no_cluster(environment):
    assert read_cluster(environment) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{'cluster': {}}", "is not valid JSON"),
        ("[1, 2]", r"names no cluster, found \[1, 2\]"),
        ("{}", "names no cluster, found {}"),
        ('{"cluster": {}, "task": {"type": "worker", "index": 0}}', "names no cluster"),
        ('{"cluster": ["node0:1"]}', "names no cluster"),
        (config({"worker": HOSTS}, index=3)["TF_CONFIG"], r"'index': 3.*none of.*'worker': 3"),
        (config({"worker": HOSTS}, index=-1)["TF_CONFIG"], "'index': -1"),
        (config({"worker": HOSTS}, index="0")["TF_CONFIG"], "'index': '0'"),
        (config({"worker": HOSTS}, index=True)["TF_CONFIG"], "'index': True"),
        (config({"worker": HOSTS}, "chief")["TF_CONFIG"], "'type': 'chief'"),
        (config({"worker": HOSTS}, kind=["worker"])["TF_CONFIG"], "which is none of its tasks"),
        (json.dumps({"cluster": {"worker": HOSTS}}), "has the task None"),
        (json.dumps({"cluster": {"worker": HOSTS}, "task": "worker 0"}), "has the task worker 0"),
        (config({"worker": HOSTS, "ps": ["node9:1"]})["TF_CONFIG"], "has tasks of type ps; every"),
        (config({"worker": HOSTS, "evaluator": HOSTS})["TF_CONFIG"], "tasks of type evaluator"),
        (config({"worker": "node0:1"})["TF_CONFIG"], "must list worker as host:port, found node0"),
        (config({"worker": ["node0", "node1"]})["TF_CONFIG"], "host:port, found .'node0', 'node1'"),
        (config({"worker": ["a:1", "a:b"]})["TF_CONFIG"], "must list worker as host:port"),
        (config({"worker": ["a:1", "http://a:2"]})["TF_CONFIG"], "must list worker as host:port"),
        (config({"worker": ["a:1", 2]})["TF_CONFIG"], "must list worker as host:port"),
        (config({"chief": HOSTS[:2], "worker": HOSTS[2:]})["TF_CONFIG"], "has 2 chiefs"),
        (config({"worker": ["a:1", "b:1", "a:1"]})["TF_CONFIG"], "lists an address twice"),
        (config({"chief": ["a:1"], "worker": ["a:1"]})["TF_CONFIG"], "lists an address twice"),
    ],
)
def test_mistakes_are_named_with_an_example(value, found):
    with pytest.raises(UserError, match=found) as error:
        read_cluster({"TF_CONFIG": value})
    assert str(error.value).startswith("The environment variable TF_CONFIG ")
    assert '{"cluster": {"worker": ["host0:12345"' in str(error.value)


def test_the_example_of_the_message_is_right():
    with pytest.raises(UserError) as error:
        read_cluster({"TF_CONFIG": "{"})
    example = str(error.value).split("something like ")[1].split(", or unset")[0]
    cluster = read_cluster({"TF_CONFIG": example})
    assert cluster is not None and cluster.workers == 2 and cluster.worker == 0


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("Socket closed while calling /job:worker/replica:0/task:1 …", [2]),
        ("/job:worker/task:1: unhealthy: /job:worker/replica:0/task:0", [1, 2]),
        ("[[{{node loss/CollectiveReduceV2}}]]", []),
        ("Error from /job:chief/replica:0/task:0, told to /job:worker/task:1", [2]),
    ],
)
def test_the_other_machines_that_a_message_names(message, named):
    cluster = read_cluster(config({"chief": HOSTS[:1], "worker": HOSTS[1:]}, "chief"))
    assert cluster is not None
    assert cluster.workers_in_message(message) == named


def test_on_the_command_line_a_mistake_is_one_sentence(tmp_path):
    arguments = [
        "-m",
        "kerasseg.cli",
        "train",
        f"run.root={tmp_path}",
        f"records.root={tmp_path}",
    ]
    done = run_program(arguments, env={"TF_CONFIG": '{"cluster": '})
    assert done.returncode == 2 and not done.stdout
    # TensorFlow 2.19 says before it that there is no GPU.
    *before, last = done.stderr.splitlines()
    assert last.startswith("error: The environment variable TF_CONFIG is not valid JSON")
    assert all("cuInit" in line or "absl::InitializeLog" in line for line in before), before
    assert not list(tmp_path.iterdir())
