"""BinaryConnect: one step as computed by hand; what is judged and written is binary."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from rcompress.artifacts.checkpoint import read_checkpoint
from rcompress.errors import RcompressError
from rcompress.methods.binarize import (
    BinarizeOptions,
    BinaryConnect,
    binary_layers,
    glorot_coefficient,
    parameter_groups,
)
from rcompress.methods.layer_weights import plain
from rcompress.models import build_model, load_model
from rcompress.training import Recipe
from rcompress.training.recipe import build_optimizer

ALL = BinarizeOptions(all_layers=True)
SGD = Recipe(learning_rate=0.05, momentum=0.0, weight_decay=0.1)


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 5, generator=generator), 10 * torch.randn(7, 3, generator=generator)


def one_step(module, constraint, recipe=SGD):
    constraint.attach(module)
    optimizer = build_optimizer(recipe, module, parameter_groups(recipe)(module))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group.get("lr_scale", 1.0)
    inputs, targets = batch()
    ((module(inputs) - targets) ** 2).mean().backward()
    optimizer.step()
    constraint.after_step(module)


def latent(module, name):
    return module.get_submodule(name).parametrizations.weight.original.detach()


def test_one_step_is_algorithm_1():
    """Binarize, forward, backward by the chain rule, update the real weights, clip: in plain matrix products."""
    module = two_layers()
    first, second = (
        (w := module[i].weight.detach().double()) / w.abs().amax(1, keepdim=True) for i in (0, 2)
    )
    one_step(module, BinaryConnect(["0", "2"], ALL))

    inputs, targets = (tensor.double() for tensor in batch())
    binary = [torch.where(w >= 0, 1.0, -1.0).double() for w in (first, second)]
    hidden = inputs @ binary[0].T
    error = 2 * (hidden.relu() @ binary[1].T - targets) / targets.numel()
    gradients = [((error @ binary[1]) * (hidden > 0)).T @ inputs, error.T @ hidden.relu()]
    for name, weight, gradient, units in (("0", first, gradients[0], 9), ("2", second, gradients[1], 7)):
        rate = SGD.learning_rate / (1.5 / units)  # the square of sqrt(1.5 / (inputs + outputs))
        moved = weight - rate * gradient
        assert bool((moved.abs() > 1).any()), "nothing was clipped: the test says nothing of it"
        torch.testing.assert_close(latent(module, name).double(), moved.clamp(-1, 1), rtol=1e-5, atol=1e-6)


def test_xnor_has_rastegaris_gradient():
    """Equation (alpha = mean |W|): dC/dW = dC/dB * (sign'(W) alpha) + sign(W) / n * sum(dC/dB * sign(W))."""
    options = BinarizeOptions("xnor", all_layers=True)
    layer = nn.Sequential(nn.Linear(6, 3, bias=False))
    BinaryConnect(["0"], options).attach(layer)
    weight = latent(layer, "0")
    scale = weight.abs().mean(1, keepdim=True)
    torch.testing.assert_close(layer[0].weight, scale * weight.sign())
    upstream = torch.randn(3, 6)
    (layer[0].weight * upstream).sum().backward()
    expected = upstream * scale + weight.sign() / 6 * (upstream * weight.sign()).sum(1, keepdim=True)
    torch.testing.assert_close(layer[0].parametrizations.weight.original.grad, expected)


def test_stochastic_signs_have_the_right_mean_in_training_alone():
    layer = nn.Sequential(nn.Linear(4, 2, bias=False))
    BinaryConnect(["0"], BinarizeOptions(stochastic=True, all_layers=True)).attach(layer)
    torch.manual_seed(0)
    drawn = torch.stack([layer[0].weight.detach() for _ in range(4000)])
    assert set(drawn.unique().tolist()) <= {-1.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), latent(layer, "0"), atol=0.06, rtol=0)
    layer.eval()
    assert torch.equal(layer[0].weight, torch.where(latent(layer, "0") >= 0, 1.0, -1.0))


def test_the_first_and_the_last_layer_are_kept():
    module = build_model("resnet20", 10, shortcut="pad")
    names = binary_layers(module, BinarizeOptions())
    assert len(names) == 18 and "conv1" not in names and "fc" not in names
    assert len(binary_layers(module, ALL)) == 20
    with pytest.raises(RcompressError, match="no layer between"):
        binary_layers(nn.Sequential(nn.Linear(2, 2)), BinarizeOptions())


def test_latent_weights_are_never_decayed_and_their_rates_are_glorots():
    module = build_model("resnet20", 10)
    recipe = Recipe(optimizer="adamw", weight_decay=0.1)
    names = binary_layers(module, BinarizeOptions())
    BinaryConnect(names, BinarizeOptions()).attach(module)
    groups = parameter_groups(recipe)(module)
    scaled = [group for group in groups if "lr_scale" in group]
    assert len(scaled) == len(names) and all(group["weight_decay"] == 0 for group in scaled)
    convolution = module.layer3[2].conv1.parametrizations.weight.original
    assert glorot_coefficient(convolution) == pytest.approx(math.sqrt(1.5 / (128 * 9)))
    (own,) = (group for group in scaled if group["params"][0] is convolution)
    assert own["lr_scale"] == pytest.approx(1 / glorot_coefficient(convolution))
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(list(module.parameters()))


def test_signs_at_the_start_are_those_of_the_network():
    module = build_model("resnet20", 10)
    name = "layer1.0.conv1"
    before = module.get_submodule(name).weight.detach().clone()
    BinaryConnect([name], BinarizeOptions()).attach(module)
    torch.testing.assert_close(latent(module, name).abs().flatten(1).amax(1), torch.ones(16))
    assert torch.equal(module.get_submodule(name).weight.sign(), before.sign())
    assert not any(parametrize.is_parametrized(layer) for layer in plain(module).modules())
    assert set(module.get_submodule(name).weight.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("scaling", ["none", "xnor"])
def test_command_writes_bits(rcompress, trained, tmp_path, scaling):
    words = ("--epochs", 3, "-b", 32, "--scaling", scaling, "--precision", "fp32", "--json")
    done = rcompress("binarize", trained, *words, "-o", tmp_path / "b.pth")
    assert done.code == 0, done.err
    assert "FP32 again" in done.err
    loaded = load_model(tmp_path / "b.pth")
    convolutions = [
        layer
        for name, layer in loaded.module.named_modules()
        if isinstance(layer, nn.Conv2d) and name != "conv1"
    ]
    for layer in convolutions:
        sizes = layer.weight.abs().flatten(1)
        assert torch.equal(sizes.amin(1), sizes.amax(1))
        assert scaling == "xnor" or sizes.unique().tolist() == [1.0]
    assert len(loaded.module.conv1.weight.unique()) > 2
    bits = sum(layer.weight.numel() for layer in convolutions)
    tables = sum(layer.out_channels for layer in convolutions) * 4
    others = sum(t.numel() * t.element_size() for t in loaded.module.state_dict().values()) - 4 * bits
    assert read_checkpoint(tmp_path / "b.pth").packed_bytes < bits / 8 + tables + others + 4000
    assert (tmp_path / "b.pth").stat().st_size < 0.12 * trained.stat().st_size
    told = json.loads(done.out)["metrics"]["top1_percent"]
    scored = rcompress("eval", tmp_path / "b.pth", "--json", "-o", tmp_path / "b.result.json")
    assert json.loads(scored.out)["metrics"]["top1_percent"] == told > 60


def test_command_refuses_wrong_use(rcompress, trained, tmp_path):
    assert rcompress("binarize", trained, "--epochs", 0).code == 2
    assert rcompress("binarize", trained, "--scaling", "some").code == 2
    assert rcompress("binarize", tmp_path / "none.pth").code == 1
