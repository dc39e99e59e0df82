"""The command line as a user meets it: fast help, one-line errors, exit code 2, nothing left."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.main import get_command

from kerasseg import __version__, progress
from kerasseg.cli import data, options
from kerasseg.cli import main as cli
from kerasseg.cli.main import EXAMPLES, build_program, main
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import DEMO_CONFIG, dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.records.store import open_store
from tests.conftest import (
    LPS,
    SHAPE,
    TINY,
    phantom_experiment,
    to_file_axes,
    write_brats,
    write_h5_volume,
    write_nifti,
)
from tests.program import Program, run_program
from tests.training.test_resume import QUICK

ROOT = Path(__file__).parents[1]


def kerasseg(*arguments: str, **options) -> "subprocess.CompletedProcess[str]":
    return run_program(["-m", "kerasseg.cli", *arguments], **options)


def test_help_and_a_wrong_verb_answer_without_tensorflow():
    probe = (
        "import sys\nfrom kerasseg.cli.main import main\nsys.argv = ['kerasseg', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'tensorflow', 'keras', 'numpy', 'scipy', 'nibabel'} & set(sys.modules)\n"
        "    print('imported', sorted(heavy))"
    )
    for arguments, code in ((["--help"], 0), (["trian"], 2), ([], 2)):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == code and "imported []" in done.stdout, done.stdout + done.stderr
    assert "No such command 'trian'" in kerasseg("trian").stderr


def run_here(*arguments: str) -> int:
    """The exit code of `kerasseg ARGUMENT…` in this process."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell's & has it ignored
    try:
        main(list(arguments), "kerasseg")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    raise AssertionError("a command ends with an exit code")


@pytest.fixture
def here(capsys):
    """A function that does `kerasseg ARGUMENT…` in this process: forking one takes a second."""

    def run(*arguments):
        capsys.readouterr()
        code = run_here(*arguments)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.mark.parametrize("verb", EXAMPLES)
def test_help_has_examples_that_can_be_typed_and_keeps_its_brackets(verb, capsys):
    assert run_here(*verb.split(), "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for example in EXAMPLES[verb]:
        assert example in shown
        words = shlex.split(example.partition(" > ")[0])
        command = get_command(build_program())
        for name in verb.split():
            command = command.commands[name]
        command.make_context(verb, words[1 + len(verb.split()) :])  # or a UsageError
    if "--config" in shown and verb != "tune":
        assert "[the demo, or neutral settings for the data set" in shown
    if verb == "tune":
        assert "[KERASTUNER_ORACLE_IP:KERASTUNER_ORACLE_PORT]" in shown


def test_version_package_and_completion(capsys):
    assert run_here("--version") == 0
    assert capsys.readouterr().out == f"kerasseg {__version__}\n"
    done = run_program(["-m", "kerasseg", "--version"])
    assert done.stdout == f"kerasseg {__version__}\n" and done.returncode == 0
    assert options.complete_setting("training.ep") == ["training.epochs="]
    assert run_here("--help") == 0 and "--install-completion" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "arguments",
    [
        ["explore"],
        ["verify"],
        ["show-batch"],
        ["convert"],
        ["config"],
        ["doctor", "run.seed=1"],
        ["bench", "data"],
        ["evaluate", "run"],
        ["compare", "run", "other"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_each_verb_answers_a_signal(arguments, number, monkeypatch, capsys):
    def stop(*_):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(data, "read_experiment", stop)
    monkeypatch.setattr("kerasseg.run.read_evaluated", stop)
    assert run_here(*arguments) == 128 + number
    assert "\nStopped. The same command begins again.\n" in capsys.readouterr().err


def test_a_signal_in_the_first_second(monkeypatch, capsys):
    """Nothing that takes time to import comes before the answer."""
    probe = "import sys, kerasseg.cli.main; print({'typer', 'yaml', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    monkeypatch.setattr(cli, "build_program", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run_here("train") == 143
    assert capsys.readouterr().err == "\nStopped before it began.\n"


def test_progress_in_a_pipe_is_a_line_every_so_often(monkeypatch, capsys):
    assert list(progress.track("abc", 3, "Reading 3 letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "Reading 3 letters: 3/3 in 0 s\n"
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert list(progress.track("abc", 3, "Reading 3 letters")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Reading 3 letters: 1/3 in 0 s, about 0 s left" and len(lines) == 3


def test_a_data_set_without_a_config_has_neutral_settings(tmp_path):
    root = f"data.root={tmp_path / 'my scans'}"
    found = options.read_experiment(None, ["data.layout=brats_nifti", root])
    assert found.run.name == "my_scans" and str(found.store_root) == "tfrecords/my_scans"
    assert found.pipeline == Experiment().pipeline and found.model == Experiment().model
    for layout in ("lgg", "image_pairs"):
        found = options.read_experiment(None, [f"data.layout={layout}", root])
        assert (found.model.dimensions, found.model.target) == (2, "binary")
    assert options.read_experiment(None, ["data.layout=phantom"]).run.name == "phantom_3d"
    with pytest.raises(UserError, match=r"how are its files laid out\? Name data\.layout, too"):
        options.read_experiment(None, [root])
    with pytest.raises(UserError, match=r"data\.layot: unknown setting. Did you mean data\.layout"):
        options.read_experiment(None, [root, "data.layot=lgg"])


def test_settings_of_evaluate_and_compare(monkeypatch, capsys):
    read = []

    def remember(folder, overrides):
        read.append((str(folder), list(overrides)))
        return SimpleNamespace(experiment=load_experiment(None, overrides))

    def stop():
        raise UserError("far enough")

    monkeypatch.setattr("kerasseg.run.read_evaluated", remember)
    monkeypatch.setattr("kerasseg.cli.evaluate.with_tensorflow", stop)
    flips, tolerance = "evaluation.flips=[width]", "metrics.tolerance=2"
    assert run_here("compare", tolerance, "a", "a", flips, "b") == 2
    assert read == [("a", [tolerance]), ("a", [tolerance, flips]), ("b", [tolerance])]
    read.clear()
    assert run_here("evaluate", "a", "b", flips, "--set", "tolerance=2") == 2
    assert read == [("a", [flips, tolerance]), ("b", [flips, tolerance])]
    capsys.readouterr()
    without_effect = ("metrics.empty=skip", "metrics.empty_distance=9")
    assert run_here("evaluate", "a", "b", *without_effect) == 2
    assert capsys.readouterr().err.count("metrics.empty_distance has no effect") == 1
    for arguments, words in (
        (["compare", "a", tolerance, "b"], "name it before the first run"),
        (["evaluate", "a", flips, "--tune-postprocessing"], f"leave {flips} out"),
        (["evaluate", "--pred", "a", "--truth", "b", flips], "they take metrics.* only"),
    ):
        assert run_here(*arguments) == 2 and words in capsys.readouterr().err


def test_other_runs_and_files_are_scored_in_another_folder(monkeypatch):
    folders = []

    def remember(*arguments):
        folders.extend(str(a) for a in arguments if isinstance(a, Path) and "reports" in a.parts)
        raise UserError("far enough")

    run = SimpleNamespace(experiment=load_experiment(None, []))
    monkeypatch.setattr("kerasseg.run.read_evaluated", lambda *_: run)
    monkeypatch.setattr("kerasseg.cli.evaluate.with_tensorflow", lambda: None)
    monkeypatch.setattr("kerasseg.evaluation.compare_runs.compare_runs", remember)
    monkeypatch.setattr("kerasseg.evaluation.evaluate_runs.evaluate_ensemble", remember)
    monkeypatch.setattr("kerasseg.evaluation.evaluate_files.evaluate_files", remember)
    for command in (
        "compare runs/a runs/b",
        "compare runs/a runs/b evaluation.flips=[width] --split train",
        "evaluate runs/a runs/b --ensemble vote",
        "evaluate --pred p --truth ../t --labels 1,2,3+4",
        "compare runs/a runs/b --output reports",
    ):
        assert run_here(*command.split()) == 2
    assert folders == [
        "reports/compare_test_runs_a_runs_b",
        "reports/compare_train_runs_a_runs_b_evaluation.flips_width",
        "reports/evaluation_test_vote_runs_a_runs_b",
        "reports/evaluation_p_.._t_1_2_3_4",
        "reports",
    ]


def test_config_prints_what_can_be_read_back(here, tmp_path):
    shown = here("config", "training.epochs=3")
    assert shown.returncode == 0 and "epochs: 3" in shown.stdout
    (tmp_path / "c.yaml").write_text(shown.stdout)
    assert here("config", "--config", str(tmp_path / "c.yaml")).stdout == shown.stdout
    assert '"$schema"' in here("config", "--schema").stdout


def test_config_prints_the_experiment_that_train_runs(capsys):
    """Without --config both take the demo."""
    data.show_config(["training.epochs=3"])
    printed = capsys.readouterr().out
    assert printed == dump_experiment(load_experiment(DEMO_CONFIG, ["training.epochs=3"]))
    assert printed == dump_experiment(options.read_experiment(None, ["training.epochs=3"]))


def test_configs_lists_every_ready_config_with_its_heading(capsys):
    data.list_configs()
    printed = capsys.readouterr().out
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        _, _, listed = f"\n{printed}".partition(f"\n{path.stem}\n")
        listed = listed.partition("\n\n")[0]
        assert all(f"\n    {word}:" in listed for word in ("Data", "Cost", "Expected", "Command"))
        verb = "tune" if path.stem.startswith("tune_") else "train"
        named = "" if path.stem in ("phantom_3d", "tune_phantom") else f" --config {path.stem}"
        assert f"kerasseg {verb}{named}" in listed
    assert ".py" not in printed and "configs/" not in printed
    assert printed.endswith(f"from its file in {ROOT / 'configs'}.\n")


def test_train_py_is_kerasseg_train():
    done = subprocess.run(
        [sys.executable, "train.py", "training.epoch=3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2 and "Did you mean training.epochs?" in done.stderr
    assert done.stderr == kerasseg("train", "training.epoch=3").stderr


def break_case(root: Path, phantom, kind: str) -> None:
    """One good BraTS case, then one way to spoil it."""
    folder = write_brats(root, "case_a", phantom)
    t2, seg = folder / "case_a_t2.nii.gz", folder / "case_a_seg.nii.gz"
    values = to_file_axes(phantom[0][..., 3]).astype(np.float32)
    if kind == "missing modality":
        t2.unlink()
    elif kind == "shape":
        write_nifti(t2, values[1:])
    elif kind == "affine":
        write_nifti(t2, values, LPS * [1.2, 1, 1, 1])
    elif kind == "truncated":
        t2.write_bytes(t2.read_bytes()[:-500])
    elif kind == "label":
        write_nifti(seg, np.full(values.shape, 9, np.uint8))
    elif kind == "nan":
        values[5, 5, 5] = np.nan
        write_nifti(t2, values)
    elif kind == "zero":
        write_nifti(t2, values * 0)
    elif kind == "empty folder":
        shutil.rmtree(folder)
    elif kind == "missing folder":
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing folder", ["does not exist", "data.root"]),
        ("empty folder", ["no brats_nifti case", "data.root"]),
        ("missing modality", ["case_a has no t2 file", "restore"]),
        ("shape", ["case_a_t2.nii.gz: shape", "resample"]),
        ("affine", ["case_a_t2.nii.gz: its affine differs", "resample"]),
        ("truncated", ["case_a_t2.nii.gz: cannot be read", "download it again"]),
        ("label", ["case_a_seg.nii.gz: label value(s) [9] are unknown", "data.label_map"]),
        ("nan", ["case_a: t2 has 1 NaN", "remove this case"]),
        ("zero", ["case_a: t2 is zero in every voxel", "remove this case"]),
    ],
)
def test_bad_scans(here, tmp_path, phantoms, kind, words):
    root = tmp_path / "data"
    root.mkdir()
    break_case(root, phantoms[0], kind)
    store = tmp_path / "out" / "store"
    done = here("convert", "data.layout=brats_nifti", f"data.root={root}", f"records.root={store}")
    assert_one_sentence(done, words)
    assert not store.exists() and not list(tmp_path.glob("out/.*"))


def test_an_h5_file_without_image(here, tmp_path, phantoms):
    import h5py

    write_h5_volume(tmp_path / "data", 0, phantoms[0])
    with h5py.File(tmp_path / "data" / "volume_0_slice_2.h5", "a") as file:
        del file["image"]
    done = here(
        "convert",
        "data.layout=brats_h5",
        f"data.root={tmp_path / 'data'}",
        f"data.h5_slices={SHAPE[0]}",
        f"records.root={tmp_path / 'store'}",
    )
    assert_one_sentence(done, ["volume_0_slice_2.h5: no dataset 'image'", "expected 'image'"])
    assert not (tmp_path / "store").exists()


def assert_one_sentence(done: subprocess.CompletedProcess[str], words: list[str]) -> None:
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in errors[0] for word in words), errors[0]


def phantom_arguments(tmp_path: Path) -> list[str]:
    shape = "[" + ",".join(map(str, SHAPE)) + "]"
    return [
        *TINY,
        f"data.phantom={{cases: 4, shape: {shape}}}",
        "records.workers=1",
        "run.name=t",
        f"records.root={tmp_path / 'store'}",
        f"run.root={tmp_path / 'runs'}",
    ]


def test_no_place_to_write(here):
    """/proc refuses new folders to everybody, root included."""
    done = here("convert", "records.root=/proc/kerasseg/store")
    assert_one_sentence(done, ["Making /proc/kerasseg/store/.lock failed", "records.root="])


@pytest.mark.parametrize("setting", ["records.root", "data.root"])
def test_no_permission(setting):
    """As an ordinary user, in folders that only their owner may write or search."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        Path(folder).chmod(0o777)
        refuse_locked_folders(Path(folder), setting)


def refuse_locked_folders(tmp_path, setting):
    locked = tmp_path / "locked"
    (locked / "inside").mkdir(parents=True)
    script = tmp_path / "kerasseg"
    script.write_text(
        "import os\nfrom kerasseg.cli.main import main\nimport kerasseg.records.store\n"
        "os.setuid(65534) if os.geteuid() == 0 else None\nmain()"
    )
    for mode, name in ((0o555, "store"), (0o000, "inside")):
        locked.chmod(mode)
        layout = ["data.layout=brats_nifti"] if setting == "data.root" else []
        setting_of = f"{setting}={locked / name}"
        done = run_program([script, "convert", *phantom_arguments(tmp_path), *layout, setting_of])
        locked.chmod(0o755)
        assert_one_sentence(done, ["locked"])
        assert list(locked.iterdir()) == [locked / "inside"]


def test_another_keras_backend_in_the_environment_is_said(tmp_path):
    jax = {**os.environ, "KERAS_BACKEND": "jax"}
    for verb in ("train", "doctor"):
        assert_one_sentence(kerasseg(verb, env=jax), ["KERAS_BACKEND=jax", "unset it"])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB; `resize` changes that."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_full_of_records_leaves_nothing_half_written(here, tmp_path, small_disk):
    shape = "data.phantom={cases: 1, shape: [40, 64, 56]}"
    store = f"records.root={small_disk / 'store'}"
    done = here("convert", *phantom_arguments(tmp_path), shape, store)
    assert_one_sentence(done, ["the store needs for 1 cases about", "records.root=FOLDER"])
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_while_converting(tmp_path, small_disk, monkeypatch):
    usage = type("Usage", (), {"free": 10**12})  # what other programs took since it was asked
    monkeypatch.setattr("kerasseg.files.shutil.disk_usage", lambda path: usage)
    shape = "data.phantom={cases: 1, shape: [40, 64, 56]}"
    experiment = phantom_experiment(tmp_path, shape, f"records.root={small_disk / 'store'}")
    with pytest.raises(UserError, match=r"the disk is full.*records.root=FOLDER"):
        open_store(experiment)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("size", [pytest.param("20k", marks=pytest.mark.all_only), "120k"])
def test_a_disk_full_of_a_run_leaves_no_run_without_a_model(tmp_path, small_disk, size):
    """Too small for TensorBoard's first file, and for the first checkpoint."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    runs = small_disk / "runs"
    done = kerasseg("train", *phantom_arguments(tmp_path), f"run.root={runs}")
    assert_one_sentence(done, ["the disk is full", "run.root=FOLDER"])
    assert list(runs.iterdir()) == []


def test_a_patch_larger_than_memory_and_than_every_volume(tmp_path):
    """The estimate of memory warns; the patch is refused for the volumes, which are known."""
    done = kerasseg("train", *phantom_arguments(tmp_path), "pipeline.patch_size=[2048,2048,2048]")
    assert "GB are available" in done.stdout and "use pipeline.patch_size=[" in done.stdout
    assert_one_sentence(done, ["2048 voxels in depth are more than any"])
    assert not (tmp_path / "runs").exists()


def test_float16_on_a_cpu_is_refused(tmp_path):
    done = kerasseg(
        "train",
        *phantom_arguments(tmp_path),
        "training.precision=mixed_float16",
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert_one_sentence(done, ["mixed_float16 needs a GPU", "training.precision=auto"])


def wait_for(process, happened):
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)


def test_ctrl_c_says_how_to_go_on_and_resume_does(tmp_path):
    """A run of one of four folds, which has a folder of its own."""
    arguments = [*phantom_arguments(tmp_path), *QUICK, "training.epochs=400", "split.test=0.0"]
    arguments += ["training.early_stopping_patience=null", "split.folds=4", "--fold", "2"]
    run = ["-m", "kerasseg.cli", "train", *arguments]
    process = Program(run)
    history = tmp_path / "runs" / "t_fold2" / "history.csv"
    try:
        wait_for(process, lambda: history.exists() and len(history.read_text().splitlines()) > 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and "--resume goes on" in process.stderr
        before = len(history.read_text().splitlines())
        process = Program([*run, "--resume"])
        wait_for(process, lambda: len(history.read_text().splitlines()) > before)
    finally:
        process.kill()
    epochs = [line.split(",")[0] for line in history.read_text().splitlines()[1:]]
    assert epochs == [str(i + 1) for i in range(len(epochs))]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["t_fold2"]
    split = json.loads((history.parent / "split.json").read_text())
    (path,) = (tmp_path / "store" / "splits").iterdir()
    folds = json.loads(path.read_text())["folds"]
    assert split["validation"] == folds[2] and len(split["train"]) == 3
    refused = kerasseg("train", *arguments[:-1], "4")
    assert_one_sentence(refused, ["split.fold 4 does not exist", "0 to 3"])


def test_doctor(tmp_path):
    done = kerasseg("doctor", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for word in ("Python", "tensorflow", "keras", "Devices", "oneDNN", "Memory", "Disk"):
        assert word in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    off = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    assert "oneDNN is off" in kerasseg("doctor", env=off).stdout


def test_convert_overwrite_replaces_a_store(here, tmp_path):
    arguments = phantom_arguments(tmp_path)
    assert "4 cases" in here("convert", *arguments).stdout
    changed = [*arguments, "data.phantom.cases=5"]
    refused = here("convert", *changed)
    assert_one_sentence(refused, ["data.phantom.cases is 4 there and 5 in this config"])
    assert "5 cases" in here("convert", "--overwrite", *changed).stdout


def test_verify_writes_a_table_and_a_json_and_its_exit_code_says_errors(here, tmp_path, phantoms):
    write_brats(tmp_path / "data", "case_a", phantoms[0])
    folder = write_brats(tmp_path / "data", "case_b", phantoms[1])
    arguments = ["verify", "data.layout=brats_nifti", f"data.root={tmp_path / 'data'}"]
    arguments += ["records.workers=1", "--output", str(tmp_path / "new" / "reports")]
    good = here(*arguments)
    assert good.returncode == 0 and "2 cases: 2 ok" in good.stdout
    (folder / "case_b_t1.nii.gz").unlink()
    bad = here(*arguments)
    assert bad.returncode == 1 and "1 with errors" in bad.stdout and "no t1 file" in bad.stdout
    written = json.loads((tmp_path / "new" / "reports" / "verify.json").read_text())
    assert not written["ok"]
    assert [case["verdict"] for case in written["cases"]] == ["ok", "error"]


def test_verify_records_names_the_damaged_one(here, tmp_path):
    arguments = [*phantom_arguments(tmp_path), "records.cases_per_shard=2"]
    output = ["--output", str(tmp_path / "reports")]
    missing = here("verify", "--records", *arguments, *output)
    assert_one_sentence(missing, ["there is no finished record store", "kerasseg convert"])
    assert here("convert", *arguments).returncode == 0
    assert here("verify", "--records", *arguments, *output).returncode == 0
    shard = tmp_path / "store" / "shard-00001.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 4] ^= 1
    shard.write_bytes(content)
    done = here("verify", "--records", *arguments, *output)
    assert done.returncode == 1 and "phantom_0002" in done.stdout
    assert here("convert", *arguments).returncode == 0, "converting repairs it"
    assert here("verify", "--records", *arguments, *output).returncode == 0


@pytest.mark.usefixtures("figures_not_rendered")
def test_explore_says_where_to_look(here, tmp_path):
    arguments = [*phantom_arguments(tmp_path), "--output", str(tmp_path / "reports")]
    done = here("explore", *arguments)
    page = tmp_path / "reports" / "explore" / "explore.html"
    assert done.returncode == 0 and f"Look at {page}" in done.stdout and page.exists()


@pytest.mark.usefixtures("figures_not_rendered")
def test_evaluate_and_compare_say_what_they_need(here, tmp_path, phantoms):
    for arguments, words in (
        (["evaluate"], ["Nothing to evaluate", "--pred"]),
        (["evaluate", "--pred", str(tmp_path)], ["both --pred FOLDER and --truth FOLDER"]),
        (["evaluate", "run", "--labels", "1"], ["not for runs"]),
        (["evaluate", "--pred", "a", "--truth", "b", "--save-labels"], ["are for runs, not files"]),
        (["evaluate", "run", "--split", "all"], ["--split all", "test, validation or train"]),
        (["compare", "a", "--split", "x"], ["--split x"]),
    ):
        assert_one_sentence(here(*arguments), words)
    label = to_file_axes(phantoms[0][1])
    for side in ("pred", "truth"):
        write_nifti(tmp_path / side / "a.nii.gz", label)
    folders = ["--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth")]
    done = here("evaluate", *folders, "metrics.tolerance=2", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"Look at {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "1.000000" in (tmp_path / "out" / "metrics.csv").read_text()
