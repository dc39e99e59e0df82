"""The files that a server is started with, read by what reads them there."""

import shutil

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from kerasseg.serving.export import write_deployment

WRITTEN = {"models.config", "batching.config", "docker-compose.yml", "kubernetes.yaml"}


@pytest.fixture
def folder(tmp_path):
    """Two models, of one two versions; and what is none."""
    for name in ("brain/1", "brain/12", "slices/3", "empty", "notes/1"):
        (tmp_path / name).mkdir(parents=True)
        if not name.startswith(("empty", "notes")):
            (tmp_path / name / "saved_model.pb").touch()
    return tmp_path


def batching_parameters():
    """The fields of TensorFlow Serving's session_bundle_config.proto that we write; its package
    for Python does not hold that file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto",
        package="test",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(names, 1):
        message.field.add(
            name=name,
            number=number,
            label=1,
            type=11,
            type_name=".google.protobuf.Int64Value",
        )
    from google.protobuf import wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.BatchingParameters"))()


def test_every_model_is_named(folder):
    assert {path.name for path in write_deployment(folder)} == WRITTEN
    text = (folder / "models.config").read_text()
    found = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = {each.name: each.base_path for each in found.model_config_list.config}
    assert models == {"brain": "/models/brain", "slices": "/models/slices"}
    assert {each.model_platform for each in found.model_config_list.config} == {"tensorflow"}


def test_what_the_user_changed_stays(folder):
    write_deployment(folder)
    (folder / "docker-compose.yml").write_text("mine")
    shutil.rmtree(folder / "brain")
    assert {path.name for path in write_deployment(folder)} == {"models.config"}
    assert (folder / "docker-compose.yml").read_text() == "mine"
    assert "brain" not in (folder / "models.config").read_text()


def test_the_files_are_what_their_readers_take(folder):
    write_deployment(folder)
    found = text_format.Parse((folder / "batching.config").read_text(), batching_parameters())
    assert found.max_batch_size.value == 8 and found.num_batch_threads.value > 0
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
    assert set(compose["services"]) == {"cpu", "gpu", "patches"}
    for name, service in compose["services"].items():
        assert service["image"].startswith("tensorflow/serving:")
        assert service["volumes"] == ["./:/models:ro"] and service["mem_limit"]
        assert "--model_config_file=/models/models.config" in service["command"]
        batched = "--enable_batching=true" in service["command"]
        assert batched == (name == "patches"), "whole volumes cannot be batched"
    devices = compose["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["capabilities"] == ["gpu"]
    kinds = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in kinds] == ["PersistentVolumeClaim", "Deployment", "Service"]
    claim, deployment, service = kinds
    pod = deployment["spec"]["template"]
    volume = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert volume == claim["metadata"]["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
    assert {each["targetPort"] for each in service["spec"]["ports"]} == ports
