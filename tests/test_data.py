"""Datasets, splits, preprocessing, augmentation."""

from __future__ import annotations

import io
import multiprocessing
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sklearn.datasets import load_digits
from small_net import ARCH

from rcompress.artifacts.spec import Preprocessing
from rcompress.data import balanced_indices, check_matches, input_batches, normalize, open_dataset
from rcompress.data.folder import open_image, read_image
from rcompress.data.memory import parquet_source
from rcompress.data.preprocess import crop_shifts, cutout, flip, shifted, square_centres
from rcompress.data.split import SPLIT_SEED, carve
from rcompress.errors import RcompressError


def write_images(folder, classes, count, side=12):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((side, side + 4, 3), 40 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_parquet(path, labels, column="label", side=8):
    images = []
    for label in labels:
        stream = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), label, dtype=np.uint8)).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
    pl.DataFrame({"img": images, column: labels}).write_parquet(path)
    return path


def test_digits_are_scikit_learns():
    split = open_dataset("digits").split("test")
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float().div(16.0).unsqueeze(1)
    enlarged = torch.nn.functional.interpolate(grey, size=(32, 32), mode="bilinear").mul(255).round()
    known = {image.numpy().tobytes(): int(label) for image, label in zip(enlarged, bunch.target, strict=True)}
    for images, labels in split.batches(100):
        for image, label in zip(images, labels.tolist(), strict=True):
            assert known[image[0].float().numpy().tobytes()] == label
            assert torch.equal(image[0], image[2])


def test_splits_are_disjoint_fixed_and_balanced():
    dataset, again = open_dataset("digits"), open_dataset("digits")
    train, validation = dataset.split("train"), dataset.split("validation")
    assert not set(train.indices.tolist()) & set(validation.indices.tolist())
    assert len(train) + len(validation) == 1297
    assert torch.equal(validation.indices, again.split("validation").indices)
    assert set(validation.labels.bincount().tolist()) == {13}
    halves = [set(dataset.split(f"test-{half}").indices.tolist()) for half in "ab"]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(500))


def test_balanced_indices():
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 5)
    chosen = balanced_indices(labels, 15, seed=1)
    assert labels[chosen].bincount().tolist() == [5, 5, 5]
    assert labels[balanced_indices(labels, 45, seed=1)].bincount().tolist() == [20, 20, 5]
    assert len(set(chosen.tolist())) == 15
    assert not torch.equal(chosen, balanced_indices(labels, 15, seed=2))


def test_even_classes_give_even_parts():
    labels = torch.arange(1000) % 10
    rest, part = carve(labels, 0.1)
    assert torch.equal(part, balanced_indices(labels, 100, SPLIT_SEED).sort().values)
    assert sorted([*rest.tolist(), *part.tolist()]) == list(range(1000))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("rare", [2, 9, 80])
def test_a_rare_class_is_in_both_parts(fraction, rare):
    labels = torch.cat([torch.full((1000,), 0), torch.full((1000,), 1), torch.full((rare,), 2)])
    rest, part = carve(labels, fraction)
    kept, given = labels[rest].bincount(minlength=3), labels[part].bincount(minlength=3)
    assert len(part) == round(len(labels) * fraction)
    assert given[2] >= 1
    assert kept[2] >= max(1, (1 - 1.5 * fraction) * rare - 1)


def test_normalize_is_the_definition():
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    prepared = Preprocessing((3, 4, 4), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    mean, std = torch.tensor(prepared.mean).view(1, 3, 1, 1), torch.tensor(prepared.std).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(images, prepared), (images / 255 - mean) / std)


def test_input_batches_follow_the_graph():
    dataset = open_dataset("digits")
    split = dataset.split("test")
    floats, labels = next(input_batches(split, dataset.preprocessing(), 7))
    assert (floats.shape, floats.dtype, len(labels)) == ((7, 3, 32, 32), torch.float32, 7)
    in_graph = Preprocessing((3, 32, 32), (0.5,) * 3, (0.5,) * 3, in_graph=True)
    raw, _ = next(input_batches(split, in_graph, 7))
    assert (raw.shape, raw.dtype) == ((7, 32, 32, 3), torch.uint8)


def test_random_crop_shifts_whole_images():
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(50, 1, 1, 1)
    moved = shifted(images, 2, crop_shifts(50, 2, torch.Generator().manual_seed(0)))
    padded = torch.nn.functional.pad(images[:1], (2,) * 4, mode="reflect")[0, 0]
    windows = [padded[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    assert all(any(torch.equal(image[0], window) for window in windows) for image in moved)
    assert len({tuple(image.flatten().tolist()) for image in moved}) > 10


def test_flip_and_cutout_touch_what_they_should():
    images = torch.randn(4, 3, 8, 8)
    chosen = torch.tensor([True, False, True, False])
    mirrored = flip(images, chosen)
    assert torch.equal(mirrored[0], images[0].flip(2))
    assert torch.equal(mirrored[1], images[1])
    centres = square_centres(500, (6, 8), torch.Generator().manual_seed(0))
    assert centres.min(0).values.tolist() == [0, 0] and centres.max(0).values.tolist() == [5, 7]
    blanked = cutout(torch.ones(1, 3, 8, 8), 4, torch.tensor([[4, 3]])) == 0
    assert blanked[..., 2:6, 1:5].all() and blanked.sum() == 3 * 16


def test_image_folder(tmp_path):
    write_images(tmp_path / "train", ("cat", "dog"), 10)
    write_images(tmp_path / "val", ("cat", "dog"), 3)
    dataset = open_dataset(f"imagefolder:{tmp_path}", image_size=8)
    assert dataset.class_names == ("cat", "dog")
    images, labels = next(dataset.split("test").batches(6))
    assert (images.shape, images.dtype, labels.tolist()) == ((6, 3, 8, 8), torch.uint8, [0, 0, 0, 1, 1, 1])
    assert images[4].unique().tolist() == [41]
    assert len(dataset.split("train")) == 18


def test_image_folder_without_a_test_part_is_divided(tmp_path):
    write_images(tmp_path, ("a", "b"), 10)
    dataset = open_dataset(f"imagefolder:{tmp_path}", image_size=8)
    train, validation, test = (dataset.split(name) for name in ("train", "validation", "test"))
    assert [len(part) for part in (train, validation, test)] == [14, 2, 4]
    assert not set(train.source.files) & set(test.source.files)


def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path):
    root = tmp_path / ".cache"  # what lies above the classes may be hidden
    write_images(root / "train", ("cat", "dog", ".ipynb_checkpoints"), 10)
    write_images(root / "train/cat", (".ipynb_checkpoints",), 2)
    (root / "train/dog/._0.png").write_bytes(b"macOS puts such beside its files")
    write_images(root / "test", ("cat", "dog", ".thumbnails"), 3)
    dataset = open_dataset(f"imagefolder:{root}", image_size=8)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train_source().labels.bincount().tolist() == [10, 10]
    assert dataset.split("test").labels.bincount().tolist() == [3, 3]


@pytest.mark.parametrize("part", ["train", ""], ids=["divided", "whole"])
def test_a_class_to_learn_without_images_is_named(tmp_path, part):
    write_images(tmp_path / part, ("cat", "dog"), 10)
    if part:
        write_images(tmp_path / "test", ("cat",), 3)  # to test, not every class is needed
    (tmp_path / part / "bird").mkdir()
    dataset = open_dataset(f"imagefolder:{tmp_path}", image_size=8)
    with pytest.raises(RcompressError, match="bird: is a class without images"):
        dataset.split("train")
    if part:
        assert len(dataset.split("test")) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("class", "has the class 'bird', which training lacks"),
        ("empty", "holds no images"),
        ("label", "has the label 3, but its classes are 0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(tmp_path, rcompress, monkeypatch, fault, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if fault == "label":
        write_parquet(tmp_path / "train.parquet", [0, 1] * 10)
        write_parquet(tmp_path / "test.parquet", [0, 1, 3])
    else:
        write_images(tmp_path / "train", ("cat", "dog"), 10)
        write_images(tmp_path / "test", ("cat", "bird") if fault == "class" else ("cat",), fault == "class")
    data = (f"parquet:{tmp_path}",) if fault == "label" else (f"imagefolder:{tmp_path}", "--image-size", 8)
    words = ("--arch", ARCH, "--epochs", 1, "-b", 4, "-o", tmp_path / "small.pth", "--dataset", *data)
    run = rcompress("train", *words)
    assert run.code == 1
    assert said in run.err.splitlines()[-1]
    assert not list(tmp_path.glob("small.*"))


def test_images_too_large_for_a_network_are_refused(tmp_path, rcompress, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", [0, 1], side=1025)
    words = ("train", "--arch", ARCH, "--epochs", 0, "-o", tmp_path / "small.pth", "--dataset")
    run = rcompress(*words, f"parquet:{tmp_path}")
    assert run.code == 1
    assert "input size (3, 1025, 1025) is out of range (sides of at most 1024); use imagefolder" in run.err
    assert rcompress(*words, f"imagefolder:{tmp_path}", "--image-size", 1025).code == 2


def test_image_folder_says_which_file_is_damaged(tmp_path):
    write_images(tmp_path / "train", ("cat",), 10)
    write_images(tmp_path / "test", ("cat",), 2)
    (tmp_path / "test/cat/1.png").write_bytes(b"no image")
    with pytest.raises(RcompressError, match=r"1\.png: is not an image"):
        list(open_dataset(f"imagefolder:{tmp_path}", image_size=8).split("test").batches(2))


def test_a_damaged_image_met_by_a_worker_process_is_named_too(tmp_path):
    for part in ("train", "test"):
        write_images(tmp_path / part, ["a", "b"], count=4)
    (tmp_path / "train" / "b" / "2.png").write_bytes(b"no image")
    code = (
        "import sys, torch\n"
        "from rcompress.data import open_dataset\n"
        "train = open_dataset(sys.argv[1], image_size=8).train_source()\n"
        "list(train.batches(torch.arange(8), batch_size=2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"imagefolder:{tmp_path}"], capture_output=True, text=True, check=False
    )  # workers are forked: from a process that has run nothing else
    assert "RcompressError" in done.stderr.splitlines()[-1]
    assert "2.png: is not an image that can be decoded" in done.stderr.splitlines()[-1]


def test_an_image_with_a_huge_text_is_named(tmp_path):
    text = PngInfo()
    text.add_text("workflow", "a" * 2_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "art.png", pnginfo=text)
    with pytest.raises(RcompressError, match=r"art\.png: is not an image that can be decoded"):
        open_image(tmp_path / "art.png")


def test_a_worker_of_a_search_decodes_by_itself(tmp_path, monkeypatch):
    """Daemonic processes may not start others."""
    for part in ("train", "test"):
        write_images(tmp_path / part, ["a", "b"], count=4)
    train = open_dataset(f"imagefolder:{tmp_path}", image_size=8).train_source()
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert sum(len(labels) for _, labels in train.batches(torch.arange(8), batch_size=2)) == 8


def test_parquet_folder(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", list(range(10)) * 2)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", list(range(10)))
    dataset = open_dataset(f"parquet:{tmp_path}")
    images, labels = next(dataset.split("test").batches(10))
    assert torch.equal(images[:, 0, 0, 0].long(), labels)
    assert (dataset.input_size, len(dataset.class_names)) == ((3, 8, 8), 10)


def test_decoded_parquet_is_cached_until_it_changes(tmp_path):
    file, cache = write_parquet(tmp_path / "train.parquet", [1, 2, 3]), tmp_path / "cache"
    first = parquet_source([file], cache)
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(parquet_source([file], cache).images, first.images)
    write_parquet(file, [4, 5, 6, 7])
    assert parquet_source([file], cache).labels.tolist() == [4, 5, 6, 7]
    for entry in cache.iterdir():
        entry.write_bytes(b"damaged")
    assert parquet_source([file], cache).labels.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("fault", ["damaged", "columns"])
def test_broken_parquet(tmp_path, fault):
    file = tmp_path / "train.parquet"
    if fault == "damaged":
        file.write_bytes(b"PAR1 but not really")
    else:
        pl.DataFrame({"text": ["a"], "label": [1]}).write_parquet(file)
    with pytest.raises(RcompressError, match=r"train\.parquet: "):
        parquet_source([file], tmp_path / "cache")


@pytest.mark.parametrize(
    ("labels", "kind", "count"),
    [([0, None, 1], pl.UInt8, 1), ([0, 1, -2], pl.Int64, 1), ([-1, -1, -1], pl.Int64, 3)],
    ids=["null", "negative", "answers-kept-back"],
)
def test_rows_without_a_label_are_refused(tmp_path, labels, kind, count):
    file = write_parquet(tmp_path / "test.parquet", [0, 1, 2])
    pl.read_parquet(file).with_columns(pl.Series("label", labels, kind)).write_parquet(file)
    said = rf"test\.parquet: has no label .* in {count} of 3 rows; .* val\*\.parquet"
    with pytest.raises(RcompressError, match=said):
        parquet_source([file], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["mnist", "imagefolder", "imagefolder:/no/such/folder", "cifar10:x"])
def test_unknown_datasets(name):
    with pytest.raises(RcompressError):
        open_dataset(name)


def test_contradicting_data_are_refused(tmp_path):
    digits = open_dataset("digits")
    with pytest.raises(RcompressError, match="has 100 outputs, but digits has 10 classes"):
        check_matches(digits, tmp_path / "m.pth", (3, 32, 32), 100)
    with pytest.raises(RcompressError, match="takes images of 3x64x64"):
        check_matches(digits, tmp_path / "m.pth", (3, 64, 64), 10)


def test_single_images_are_resized_and_cropped(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "red.png")
    image = read_image(tmp_path / "red.png", Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3, resize=10))
    assert image.shape == (1, 3, 8, 8)
    assert image[0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar(data_dir, name, classes):
    dataset = open_dataset(name, data_dir)
    test = dataset.split("test")
    assert (len(dataset.split("train")), len(dataset.split("validation")), len(test)) == (
        45_000,
        5_000,
        10_000,
    )
    assert test.labels.bincount().tolist() == [10_000 // classes] * classes
