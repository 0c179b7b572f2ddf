"""What each layer holds, read from real checkpoints."""

from __future__ import annotations

import torch

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.measure.layers import layer_figures
from rcompress.measure.static import file_metrics
from rcompress.models import load_model


def test_every_layer_of_a_checkpoint_and_nothing_of_a_graph(trained, tmp_path):
    loaded = load_model(trained)
    with torch.no_grad():
        loaded.module.conv1.weight[:4] = 0.0
    path = write_checkpoint(tmp_path / "zeros.pth", loaded.spec, loaded.module.state_dict())
    found = layer_figures(path)
    assert len(found) == 22  # 19 convolutions, two projection shortcuts, the head
    assert next(iter(found.items())) == ("conv1", {"width": 16, "weights": 432, "nonzero": 324})
    assert found["fc"]["width"] == 10
    assert sum(layer["weights"] for layer in found.values()) < file_metrics(path, loaded.spec)["parameters"]
    assert layer_figures(tmp_path / "x.onnx") == {}


def test_shortcuts_that_pad_are_no_layers(tmp_path):
    from rcompress.data import open_dataset
    from rcompress.training.start import fresh

    start = fresh("resnet32", {"shortcut": "pad"}, open_dataset("digits"), seed=0)
    path = write_checkpoint(tmp_path / "pad.pth", start.spec, start.module.state_dict())
    assert len(layer_figures(path)) == 32


def test_a_record_of_a_checkpoint_tells_its_layers_and_classes(rcompress, trained, tmp_path):
    import json

    done = rcompress("eval", trained, "-o", tmp_path / "r.result.json", "--json", "-q")
    assert done.code == 0, done.err
    context = json.loads(done.out)["context"]
    assert len(context["layers"]) == 22
    assert len(context["classes"]) == len(context["confusion"]) == 10
