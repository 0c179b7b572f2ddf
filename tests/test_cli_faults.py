"""Bad input, as a user meets it: one clear line, the right exit code, nothing lost or half-written."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import onnx
import pytest
import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.artifacts.onnx_file import METADATA_KEY
from rcompress.artifacts.spec import ModelSpec, Preprocessing
from rcompress.cli.output import Output
from rcompress.cli.session import resumable
from rcompress.models import build_model
from tests import tiny


def one_line(run, *words):
    """The single line of a known failure, naming each of ``words``."""
    assert run.code == 1, (run.out, run.err)
    lines = [line for line in run.err.splitlines() if line.startswith("rcompress: error: ")]
    assert len(lines) == 1, run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    for word in words:
        assert word in lines[0]
    return lines[0]


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("code-ran",))


def break_file(kind, path):
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello, I am no model\n" * 50)
    elif kind == "code":
        path.write_bytes(pickle.dumps(Evil()))


FAULTS = {
    "missing": "no such file",
    "folder": "is a folder",
    "empty": "is empty",
    "text": "",
    "code": "",
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    ("suffix", "command"),
    [
        (".pth", ("eval",)),
        (".pth", ("prune", "--ratio", "0.5")),
        (".pth", ("export",)),
        (".pth", ("inspect",)),
        (".pth", ("train", "--init")),
        (".onnx", ("eval",)),
        (".onnx", ("build-engine", "--int8")),
        (".onnx", ("inspect",)),
        (".xml", ("eval",)),
        (".plan", ("eval",)),
        (".plan", ("inspect",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_inputs_that_are_no_models(tmp_path, rcompress, monkeypatch, kind, suffix, command):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{suffix}"
    break_file(kind, path)
    words = (*command, path) if command[0] == "train" else (command[0], path, *command[1:])
    line = one_line(rcompress(*words), "model.", FAULTS[kind])
    assert "; " in line  # the remedy
    assert {entry.name for entry in tmp_path.iterdir()} <= {path.name}


@pytest.mark.parametrize("share", [0.2, 0.95])
def test_truncated_artifacts(folder, rcompress, share):
    assert rcompress("export", "r20.pth").code == 0
    assert rcompress("build-engine", "r20.onnx").code == 0
    for name in ("r20.pth", "r20.onnx", "r20.bin", "r20.xml"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        one_line(rcompress("eval", "r20.xml" if name == "r20.bin" else name), "r20.")
        path.write_bytes(content)


def test_json_nested_without_end(folder, rcompress):
    deep = "[" * 100_000
    for name in ("a.result.json", "a.calib.json", "a.sensitivity.json", "a.plan.json"):
        (folder / name).write_text(deep)
    (folder / "a.plan").write_bytes(b"any")
    graph = tiny.tiny_graph()
    graph.metadata_props.add(key=METADATA_KEY, value=deep)
    onnx.save(graph, folder / "a.onnx")
    adaptive = ("--target-macs", "0.5x", "--scope", "adaptive", "--sensitivity", "a.sensitivity.json")
    one_line(rcompress("report", "a.result.json"), "a.result.json", "nested too deeply")
    one_line(rcompress("quantize", "r20.pth", "--calib", "a.calib.json"), "a.calib.json", "nested too deeply")
    one_line(rcompress("prune", "r20.pth", *adaptive), "a.sensitivity.json", "nested too deeply")
    one_line(rcompress("inspect", "a.plan"), "a.plan.json")
    one_line(rcompress("inspect", "a.onnx"), "a.onnx", "nested too deeply")


@pytest.mark.parametrize("ratio", ["0", "1", "1.5", "-0.2", "many"])
def test_impossible_ratios_are_wrong_usage(folder, rcompress, ratio):
    run = rcompress("prune", "r20.pth", "--ratio", ratio)
    assert (run.code, run.out) == (2, "")
    assert "ratio" in run.err


def test_wrong_usage(rcompress):
    for words in (("train",), ("prune", "x.pth"), ("export", "x.pth", "-o", "x.jpg"), ("no-such-command",)):
        assert rcompress(*words).code == 2, words


def test_unknown_architecture_and_dataset(folder, rcompress):
    one_line(rcompress("train", "--arch", "resnet21", "--dataset", "digits"), "resnet21", "choose one of")
    one_line(rcompress("train", "--arch", "resnet20", "--dataset", "mnist"), "mnist", "choose one of")
    one_line(
        rcompress("train", "--arch", "resnet20", "--dataset", "cifar10", "--data-dir", "nowhere"), "nowhere"
    )


def test_a_checkpoint_of_another_class_count(folder, rcompress):
    spec = ModelSpec(7, Preprocessing((3, 32, 32), (0.5,) * 3, (0.5,) * 3, "digits"), "resnet20")
    write_checkpoint(folder / "seven.pth", spec, build_model("resnet20", 7).state_dict())
    one_line(rcompress("eval", "seven.pth"), "seven.pth", "7 outputs", "10 classes")
    one_line(rcompress("prune", "seven.pth", "--ratio", "0.5", "--finetune-epochs", "1"), "7 outputs")


def test_an_onnx_of_another_input_shape(folder, rcompress):
    from tests.tiny import tiny_onnx

    tiny_onnx(folder / "tiny.onnx")
    one_line(rcompress("eval", "tiny.onnx", "--dataset", "digits"), "tiny.onnx")
    one_line(rcompress("build-engine", "tiny.onnx", "--int8", "--calib", "digits:32"), "tiny.onnx")


def test_foreign_weights_name_the_import_command(folder, rcompress):
    torch.save(
        {"state_dict": build_model("resnet20", 10, shortcut="pad").state_dict()}, folder / "foreign.pth"
    )
    wanted = "rcompress import foreign.pth --arch resnet20 --shortcut pad"
    for words in (("eval",), ("inspect",), ("export",), ("prune", "--ratio", "0.5"), ("build-engine",)):
        one_line(rcompress(words[0], "foreign.pth", *words[1:]), wanted)


def test_outputs_that_cannot_be(folder, rcompress):
    before = (folder / "r20.pth").read_bytes()
    (folder / "file").write_text("x")
    (folder / "sub").mkdir()
    prune = ("prune", "r20.pth", "--ratio", "0.5", "-o")
    one_line(rcompress(*prune, "r20.pth"), "r20.pth", "is also the input")
    one_line(rcompress(*prune, "file/out.pth"), "is a file, not a folder")
    one_line(rcompress(*prune, "sub"), "is a folder")
    assert (folder / "r20.pth").read_bytes() == before
    assert list((folder / "sub").iterdir()) == []


@pytest.fixture
def mounted(tmp_path):
    """A small file system of our own; as root, permissions stop nothing."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a tmpfs needs root and a kernel that lets it")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk(folder, rcompress, mounted):
    place = mounted("size=64k")
    (place / "old.pth").write_bytes(b"old")
    one_line(rcompress("prune", "r20.pth", "--ratio", "0.5", "-o", place / "old.pth"), "No space left")
    assert (place / "old.pth").read_bytes() == b"old"
    assert [entry.name for entry in place.iterdir()] == ["old.pth"]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_read_only_mount(folder, rcompress, mounted):
    place = mounted("ro")
    one_line(rcompress("export", "r20.pth", "-o", place / "out.onnx"), "Read-only")


def test_interrupting_a_training(tmp_path):
    words = [
        "train",
        "--arch",
        "resnet20",
        "--dataset",
        "digits",
        "--epochs",
        "500",
        "-b",
        "64",
        "-o",
        "r20.pth",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "rcompress", *words, "--precision", "fp32"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "r20.resume").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-2:] == [
        "r20.resume is kept: the same command with --resume goes on there",
        "rcompress: error: interrupted",
    ]
    assert (out, "Traceback" in err) == ("", False)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"r20.resume", "r20.log.jsonl", "r20.curves.png"}


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['rcompress', '--help']\n"
        "from rcompress.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'polars', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version(rcompress):
    import rcompress as package

    assert rcompress("--version").out == f"rcompress {package.__version__}\n"


def test_options_that_would_do_nothing_are_wrong_usage(folder, rcompress):
    for words in (
        ("prune", "r20.pth", "--ratio", "0.5", "--resume"),
        ("train", "--init", "r20.pth", "--arch", "resnet56"),
        ("build-engine", "r20.pth", "--calib", "digits:32"),
        ("build-engine", "r20.pth", "--target", "sm_86", "-o", "r20.xml"),
        ("build-engine", "r20.pth", "--fp16", "-b", "64"),
        ("build-engine", "r20.pth", "--int8", "--no-verdict", "--verdict-images", "9"),
        ("build-engine", "r20.pth", "--int8", "--backend", "torch-x86", "--no-verdict"),
        ("prune", "r20.pth", "--ratio", "0.5", "--no-distill"),
        ("quantize", "r20.pth", "--weight-bits", "4", "--activation-bits", "none", "--method", "mse"),
    ):
        run = rcompress(*words)
        assert (run.code, run.out) == (2, ""), (words, run)


def test_outputs_of_another_kind(folder, rcompress):
    for name in ("bad.onnx", "a.resume"):
        one_line(rcompress("prune", "r20.pth", "--ratio", "0.5", "-o", name), "is no name for a checkpoint")
    os.mkfifo("pipe.pth")
    one_line(rcompress("prune", "r20.pth", "--ratio", "0.5", "-o", "pipe.pth"), "is a device or pipe")
    (folder / "link.pth").symlink_to("target.pth")
    assert rcompress("prune", "r20.pth", "--ratio", "0.5", "-o", "link.pth").code == 0
    assert (folder / "link.pth").is_symlink()
    assert (folder / "target.pth").is_file()


def test_data_with_other_classes_are_refused(folder, rcompress):
    from PIL import Image

    for part in ("train", "test"):
        for name in "abcdefghij":
            (folder / "img" / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32)).save(folder / "img" / part / name / f"{number}.png")
    dataset = ("--dataset", f"imagefolder:{folder / 'img'}")
    one_line(rcompress("eval", "r20.pth", *dataset), "calls its class 0 '0'")
    (folder / "img/test/a/1.png").write_bytes(b"broken")
    made = ("train", "--arch", "resnet20", *dataset, "--image-size", "32", "--epochs", "0", "-o", "n.pth")
    one_line(rcompress(*made), "1.png")


def test_our_own_checkpoint_is_not_imported(folder, rcompress):
    one_line(rcompress("import", "r20.pth", "--arch", "resnet20", "--dataset", "digits"), "already")
    one_line(
        rcompress("import", "r20.pth", "--arch", "resnet20", "--dataset", "digits", "--std", "nan,1,1"),
        "finite",
    )


def test_a_foreign_file_with_claimed_shapes_is_refused(folder, rcompress):
    state = build_model("resnet20", 10).state_dict()
    state["fc.weight"] = torch.zeros(1, 1).expand(10**9, 64)
    torch.save(state, folder / "huge.pth")
    one_line(rcompress("import", "huge.pth", "--arch", "resnet20", "--dataset", "digits"), "huge.pth")


def test_a_foreign_graph_of_another_class_count(folder, rcompress):
    import onnx

    assert rcompress("export", "r20.pth").code == 0
    foreign = onnx.load("r20.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, "foreign.onnx")
    from PIL import Image

    for part in ("train", "test"):
        for name in "abc":
            (folder / "img" / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (40, 40)).save(folder / "img" / part / name / f"{number}.png")
    words = ("eval", "foreign.onnx", "--dataset", f"imagefolder:{folder / 'img'}")
    norm = ("--mean", "0.3,0.3,0.3", "--std", "0.3,0.3,0.3")
    one_line(rcompress(*words, *norm, "--per-class"), "has 10 outputs", "3 classes")
    assert not list(folder.glob("*.eval.result.json"))


def test_derived_names_tell_results_of_another_kind_apart(folder, rcompress):
    for words in (
        ("export", "r20.pth"),
        ("export", "r20.pth", "--with-preprocessing"),
        ("quantize", "r20.pth", "--calib-images", "16"),
        ("quantize", "r20.pth", "--calib-images", "16", "--backend", "tensorrt"),
    ):
        assert rcompress(*words).code == 0
    names = {"r20.onnx", "r20-pre.onnx", "r20-int8.onnx", "r20-int8-tensorrt.onnx"}
    assert names <= {path.name for path in folder.iterdir()}


def test_an_older_runs_state_is_not_called_kept(tmp_path, capsys):
    (tmp_path / "r20.resume").write_bytes(b"older")
    for written in (False, True):
        with pytest.raises(KeyboardInterrupt), resumable(Output(), tmp_path / "r20.pth"):
            if written:
                (tmp_path / "r20.resume").unlink()
                (tmp_path / "r20.resume").write_bytes(b"newer")
            raise KeyboardInterrupt
        assert ("is kept" in capsys.readouterr().err) == written
