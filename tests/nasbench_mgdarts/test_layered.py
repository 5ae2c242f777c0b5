"""MobileNetV3's layers: sizes against the space's own costs, cutting, regrowing, the rule that something passes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nasbench_mgdarts.controller import operation_regulariser
from nasbench_mgdarts.final import architecture, final_network, from_genes, genes, one_operation_an_edge
from nasbench_mgdarts.layered import DIVISIONS, PLACES, LayerNet, full_layers
from nasbench_mgdarts.network import SearchNet
from nasbench_mgdarts.pruning import prune
from nasbench_mgdarts.regrow import regrow
from nasbench_mgdarts.slicing import cut
from nasbench_mgdarts.units import reset_thresholds, retention, search_size
from nasbench_mobile.mobilenet_v3 import MobileNetV3
from safetensors.torch import load_file

from nasbench import BadInput
from nasbench.harness import execute
from nasbench.recipe import resolve
from nasbench.records import metric
from tests.nasbench_mgdarts.conftest import ALL, Start, images
from tests.nasbench_mgdarts.test_pruning import shaken
from tests.nasbench_mgdarts.test_slicing import trained


def layers(count: int = len(PLACES), **space: Any) -> LayerNet:
    """The first layers, small, in float64, with thresholds in place."""
    made = MobileNetV3(**{"width": 0.1, "strides": (1, 2, 2, 1, 1, 1), "image": (3, 8, 8), "classes": 10, **space})
    torch.manual_seed(0)
    net = LayerNet(made, full_layers(made)[:count], ALL, "small", False).double()
    reset_thresholds(net, "minimum")
    return net


@pytest.mark.invariant("mg-darts", 24)
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("width", [0.2, 1.0])
def test_the_uncut_network_has_the_parameters_that_the_space_counts(kernel: int, width: float) -> None:
    space = MobileNetV3(width=width, classes=100)
    net = LayerNet(space, full_layers(space), ALL, "medium", False)
    with torch.no_grad():
        for s in net.structures_():
            s.alpha[0, (kernel - 3) // 2] = 1.0
    arch = architecture(net)
    assert arch == space.canonical(space.parse(f"ks={kernel} e=6 d=3,3,3,4,4"))
    assert final_network(net, arch).sizes() == (space.cost(arch)["params"],) * 2


@pytest.mark.invariant("mg-darts", 24)
def test_there_are_17_layers_of_three_operations_in_three_stages() -> None:
    assert DIVISIONS == (6, 13, 17)
    assert sum(len(shape.operations) for shape in layers().structure()) == 51
    strides = [layers().space.places[p].stride for p in PLACES]
    assert [i for i, stride in enumerate(strides) if stride == 2] == [0, 3]  # of this small net; at 224 also 6 and 13
    whole = [MobileNetV3().places[p].stride for p in PLACES]
    assert [i for i, stride in enumerate(whole) if stride == 2] == [0, 3, 6, 13]


@pytest.mark.invariant("mg-darts", 25)
@pytest.mark.parametrize("count", DIVISIONS)
def test_a_net_without_its_masked_filters_is_the_same_net(count: int) -> None:
    n = shaken(layers(count, strides=(1, 1, 2, 2, 1, 1)))
    prune(n, {"op": count, "filter": 0.4, "weight": 0.05})
    n = trained(n)
    sliced, _ = cut(n)
    assert torch.allclose(sliced.eval()(images()), n(images()), atol=1e-9)
    assert search_size(sliced) == search_size(n)
    assert retention(sliced) == retention(n)
    assert retention(n)["op"] == pytest.approx(2 / 3)
    assert sum(p.numel() for p in sliced.parameters()) < 0.8 * sum(p.numel() for p in n.parameters())


@pytest.mark.invariant("mg-darts", 26)
def test_of_every_layer_an_operation_and_a_filter_pass_and_stay() -> None:
    n = layers()
    with torch.no_grad():
        for s in n.structures_():
            s.t_alpha.fill_(1.0)
            s.alpha[0, 1] = 0.5
        for cell in n.cells_():
            assert cell.t_beta is not None
            cell.t_beta.fill_(1.0)
    out = n(images())
    out.square().sum().backward()
    assert out.std(0).gt(0).all()  # the images still make a difference
    slopes = [p.grad for p in n.parameters() if p.grad is not None]
    assert max(float(g.abs().max()) for g in slopes) < 1e6
    assert prune(n) == 2 * 17
    assert one_operation_an_edge(n)
    assert all(s.alive.tolist() == [[False, True, False]] for s in n.structures_())
    assert all(int(vector.mask.sum()) == 1 for vector, _ in n.filters())


@pytest.mark.invariant("mg-darts", 12)
def test_regrown_operations_come_back_at_full_width() -> None:
    n: SearchNet = shaken(layers())
    pruned = prune(n, {"op": 20, "filter": 0.5, "weight": 0.0})
    before = [s.alpha.detach().clone() for s in n.structures_()]
    n, _ = cut(n)
    grown, new = regrow(n, 4, random.Random(0), "largest_remainder")
    assert (pruned, len(new)) == (20, 4)
    full = {(i, *o[:2]): o[2] for i, shape in enumerate(full_layers(n.space)) for o in shape.operations}
    for k, e, op in new:
        block: Any = grown.cells_()[k].operations[f"{e}_{op}"]
        assert len(block.filters.mask) == full[k, e, op] == int(block.filters.mask.sum())
        assert torch.equal(grown.structures_()[k].alpha, before[k])
    assert grown(images()).shape == (4, 10)


@pytest.mark.invariant("mg-darts", 6)
def test_the_regulariser_of_layers_by_hand() -> None:
    n = layers(1)
    log2 = torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    assert operation_regulariser(n).item() == pytest.approx(3 * log2)
    place = n.space.places[0]
    middle = place.middle(6)  # equal filters each weigh log 2
    weights = sum(middle * (place.in_channels + k * k + place.out_channels) for k in (3, 5, 7))
    assert operation_regulariser(n, reg=0.0, mu=1e6).item() == pytest.approx(log2 * log2 * weights)


@pytest.mark.invariant("mg-darts", 16)
def test_genes_and_masks_rebuild_the_network() -> None:
    n: SearchNet = shaken(layers())
    prune(n, {"op": 34, "filter": 0.3, "weight": 0.1})
    n, _ = cut(n)
    arch = architecture(n)
    final = final_network(n, arch)
    assert arch in n.space
    dense, nonzero = final.sizes()
    assert nonzero == dense - sum(int((b == 0).sum()) for name, b in final.named_buffers() if name.endswith("mask"))
    assert nonzero < dense
    again = from_genes(n.space, json.loads(json.dumps(genes(final))))
    again.load_state_dict(final.state_dict())
    assert torch.equal(again.eval()(images().float()), final.eval()(images().float()))
    with pytest.raises(BadInput, match="1 layers, and mobilenetv3 has 17"):
        from_genes(n.space, genes(final)[:1])


@pytest.mark.invariant("mg-darts", 18)
@pytest.mark.slow
def test_a_whole_run_on_layers(tmp_path: Path) -> None:
    record, path = execute(resolve("mg-darts", "mobilenetv3", preset="test"), tmp_path)
    assert list(record["measured"]["seconds"]) == ["stage-1", "stage-2", "stage-3", "fine-tune", "retrain"]
    found = json.loads((path.parent / "choices/1.json").read_text())
    space = MobileNetV3(width=0.1, strides=(1, 2, 2, 1, 1, 1), image=(1, 8, 8), classes=10)
    network = from_genes(space, found["genes"])
    network.load_state_dict(load_file(path.parent / "choices/1.safetensors"))
    assert metric(record, "params", 1)["value"] == network.sizes()[1]  # type: ignore[index]
    assert metric(record, "target_reached")["value"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "value"), [("align", "paper_mean"), ("retrain_auxiliary", 0.4), ("official_bug_compat", True)]
)
def test_what_layers_do_not_have_is_refused(start: Start, name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"mobilenetv3 has nothing that mg-darts.{name} could change"):
        start(space="mobilenetv3", **{"mg-darts": {name: value}})
