"""k-means: as small independent computations have it; clusters survive fine-tuning; files really shrink."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from rcompress.artifacts.checkpoint import write_checkpoint
from rcompress.errors import RcompressError
from rcompress.methods.cluster import CentroidTuning, cluster, kmeans, nearest
from rcompress.methods.layer_weights import plain
from rcompress.models import build_model, load_model


def lloyd(values, clusters):
    """The textbook's algorithm: every value asks every centroid."""
    centroids = np.linspace(values.min(), values.max(), clusters)
    while True:
        owner = np.abs(values[:, None] - centroids).argmin(1)
        moved = np.array(
            [values[owner == k].mean() if (owner == k).any() else centroids[k] for k in range(clusters)]
        )
        if np.allclose(moved, centroids, rtol=0, atol=1e-13):
            return moved[[bool((owner == k).any()) for k in range(clusters)]]
        centroids = moved


def distinct(weight):
    return len(weight.unique())


@pytest.mark.parametrize("clusters", [2, 5, 16, 64])
def test_kmeans_is_lloyds_algorithm(clusters):
    values = np.random.default_rng(clusters).standard_normal(3000)
    np.testing.assert_allclose(kmeans(values, clusters), lloyd(values, clusters), atol=1e-12)


def test_of_well_separated_values_kmeans_finds_the_best_clusters():
    """All splits of ten sorted values into three, tried one by one."""
    values = np.array([-3.1, -3.0, -2.8, 0.1, 0.2, 0.25, 0.4, 5.0, 5.2, 5.3])
    costs = {
        cut: sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cut))
        for cut in itertools.combinations(range(1, 10), 2)
    }
    best = [part.mean() for part in np.split(values, min(costs, key=costs.get))]
    np.testing.assert_allclose(kmeans(values, 3), best)


def test_nearest():
    centroids = np.array([-1.0, 0.0, 4.0])
    values = np.array([-9.0, -0.6, -0.4, 1.9, 2.1, 9.0])
    assert nearest(values, centroids).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("clusters", [256, 4])
def test_layers_keep_so_many_values(clusters):
    torch.manual_seed(0)
    module = build_model("resnet20", 10, shortcut="pad")
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    rows = cluster(module, clusters)
    assert len(rows) == 20  # 19 convolutions and the head; fixed shortcuts are not learned
    for row in rows:
        weight = module.get_parameter(f"{row.name}.weight").detach()
        change = (weight - before[f"{row.name}.weight"]).norm() / before[f"{row.name}.weight"].norm()
        if row.reason is None:
            assert distinct(weight) == row.values <= clusters
            assert float(change) == pytest.approx(row.relative_error, rel=1e-4)
        else:
            assert change == 0
    assert max(row.relative_error for row in rows) < (0.05 if clusters == 256 else 0.6)


def test_zeros_stay_zero():
    torch.manual_seed(0)
    layer = nn.Linear(40, 40)
    pruned = torch.rand(40, 40) < 0.7
    with torch.no_grad():
        layer.weight[pruned] = 0.0
        layer.weight[~pruned] += layer.weight[~pruned].sign()
    cluster(layer_in(layer), 8)
    assert distinct(layer.weight) >= 7  # none is wasted on the gap around zero
    assert torch.equal(layer.weight == 0, pruned)


def layer_in(layer):
    return nn.Sequential(layer)


def test_layers_left_alone_say_why():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(100, 100), nn.Linear(100, 2))
    with torch.no_grad():
        module[2].weight.copy_(module[2].weight.sign())
    reasons = [row.reason for row in cluster(module, 13)]
    assert reasons == ["is too small for 13 clusters", None, "has 2 values as it is"]


@pytest.mark.parametrize("clusters", [1, 257])
def test_impossible_numbers(clusters):
    with pytest.raises(RcompressError, match="not within 2 and 256"):
        cluster(build_model("resnet20", 10), clusters)


def test_nothing_to_cluster():
    with pytest.raises(RcompressError, match="no layer gains"):
        cluster(layer_in(nn.Linear(3, 3)), 8)


def test_a_step_moves_each_cluster_by_its_mean_gradient():
    """Plain descent on the weights, projected onto the clusters, computed by hand."""
    torch.manual_seed(0)
    module = layer_in(nn.Linear(6, 5, bias=False))
    cluster(module, 4)
    start = module[0].weight.detach().clone()
    inputs, targets = torch.randn(8, 6), torch.randn(8, 5)
    weight = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(((inputs @ weight.T - targets) ** 2).mean(), weight)
    expected = start.clone()
    for value in start.unique():
        own = start == value
        expected[own] -= 0.1 * gradient[own].mean()

    CentroidTuning(["0"]).attach(module)
    torch.testing.assert_close(module[0].weight, start)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ((module(inputs) - targets) ** 2).mean().backward()
    optimizer.step()
    torch.testing.assert_close(plain(module)[0].weight.detach(), expected)
    assert list(module.state_dict()) == ["0.weight"]


def test_zero_clusters_are_not_trained():
    module = layer_in(nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        module[0].weight[0] = 0.0
    cluster(module, 4)
    CentroidTuning(["0"]).attach(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        module(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    assert not plain(module)[0].weight[0].any()


def test_command_shrinks_the_file_and_keeps_the_accuracy(rcompress, trained, tmp_path):
    done = rcompress("cluster", trained, "--clusters", 32, "-o", tmp_path / "k.pth")
    assert done.code == 0, done.err
    assert (tmp_path / "k.pth").stat().st_size < 0.25 * trained.stat().st_size
    loaded = load_model(tmp_path / "k.pth")
    assert max(distinct(p) for p in loaded.module.parameters() if p.dim() > 1) <= 32
    assert loaded.spec.lineage[-1].command == "cluster"
    scores = [
        json.loads(rcompress("eval", path, "--json", "-o", tmp_path / "e.result.json").out)
        for path in (trained, tmp_path / "k.pth")
    ]
    before, after = (score["metrics"]["top1_percent"] for score in scores)
    assert after > before - 2


def test_command_finetunes_within_the_clusters(rcompress, trained, tmp_path):
    words = ("--clusters", 4, "--finetune-epochs", 2, "--lr", "0.02", "--precision", "fp32", "--json")
    done = rcompress("cluster", trained, *words, "-o", tmp_path / "k.pth")
    assert done.code == 0, done.err
    loaded = load_model(tmp_path / "k.pth")
    clustered = load_model(trained).module
    rows = cluster(clustered, 4)
    for row in rows:
        weight = loaded.module.get_parameter(f"{row.name}.weight")
        first = clustered.get_parameter(f"{row.name}.weight")
        assert distinct(weight) == 4
        assert not torch.equal(weight, first)
        assert distinct(torch.stack([weight.flatten(), first.flatten()], 1)[:, 0]) == 4
        pairs = torch.stack([weight.flatten(), first.flatten()], 1).unique(dim=0)
        assert len(pairs) == 4  # a weight never changes its cluster
    step = loaded.spec.lineage[-1]
    assert step.metrics["top1_percent"] == json.loads(done.out)["metrics"]["top1_percent"] > 80
    assert step.chosen_on == "validation"


def test_layers_of_few_values_keep_them_while_others_are_tuned(rcompress, trained, tmp_path):
    loaded = load_model(trained)
    with torch.no_grad():
        signs = loaded.module.layer1[0].conv1.weight
        signs.copy_(0.05 * signs.sign())
    source = write_checkpoint(tmp_path / "signs.pth", loaded.spec, loaded.module.state_dict())
    words = ("--clusters", 4, "--finetune-epochs", 1, "--precision", "fp32")
    done = rcompress("cluster", source, *words, "-o", tmp_path / "k.pth")
    assert done.code == 0, done.err
    assert distinct(load_model(tmp_path / "k.pth").module.layer1[0].conv1.weight) == 2


def test_command_refuses_wrong_use(rcompress, trained, tmp_path):
    assert rcompress("cluster", trained, "--clusters", 300).code == 2
    assert rcompress("cluster", trained, "--lr", "0.1").code == 2
    assert rcompress("cluster", trained, "--dataset", "digits").code == 2
    assert rcompress("cluster", tmp_path / "none.pth").code == 1
