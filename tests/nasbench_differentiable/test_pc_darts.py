"""PC-DARTS: partial channels, edges weighed against each other, alpha at rest in the warm-up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_cells.darts import DARTS, EDGES
from nasbench_cells.nb201 import NB201
from nasbench_differentiable.pc_darts import edges_by_node

from nasbench import BadInput
from tests.nasbench_differentiable.conftest import Train, Trained


@pytest.mark.invariant("pc-darts", 1)
def test_one_channel_in_k_goes_through_the_operations_on_nb201() -> None:
    """By hand: mixed channels, the rest weighted by the sum of all weights, then every k-th channel is a mixed one."""
    torch.manual_seed(0)
    net: Any = NB201(channels=8, cells=1, image=(1, 8, 8)).partial_supernet(4).double()
    for i, group in enumerate(net.groups):
        width, (cell,) = 8 << i, group
        x = torch.randn(3, width, 8, 8, dtype=torch.float64)
        mixture = [torch.rand(5, dtype=torch.float64) for _ in range(6)]
        silent = [torch.zeros(5, dtype=torch.float64) for _ in range(6)]
        part, rest = x[:, : width // 4], x[:, width // 4 :]
        for edge in (0, 1, 3):  # those that read the input; 3 leads to the output
            w = mixture[edge]
            ops = [cell.edges[edge](part, op) for op in range(1, 5)]
            both = torch.cat([sum(a * y for a, y in zip(w[1:], ops, strict=True)), w.sum() * rest], 1)
            wanted = both[:, [g * (width // 4) + j for j in range(width // 4) for g in range(4)]]
            if edge == 3:
                assert torch.allclose(cell.mix(x, [*silent[:3], w, *silent[4:]]), wanted)
        assert all(p.shape[0] == width // 4 for p in cell.edges.parameters())


@pytest.mark.invariant("pc-darts", 1)
def test_the_convolutions_of_the_search_network_have_a_sixteenth_of_the_weights() -> None:
    whole, part = (sum(p.numel() for p in net.groups.parameters() if p.ndim == 4) for net in nets())
    assert whole == 16 * part == 6 * 10 * (8**2 + 16**2 + 32**2)


def nets() -> tuple[Any, Any]:
    space = NB201(channels=8, cells=1)
    return space.supernet(), space.partial_supernet(4)


@pytest.mark.invariant("pc-darts", 2)
@pytest.mark.parametrize("space", ["nb201", "darts"])
def test_the_edges_into_a_node_share_a_weight_of_one(inside: Any, space: str) -> None:
    def look(trained: Trained) -> Any:
        for alpha in trained.method._alphas:
            alpha.data.copy_(torch.linspace(0, 1, len(alpha), dtype=alpha.dtype))
        return edges_by_node(trained.run), trained.method.mixture(trained.run, "train"), trained.method._alphas

    groups, mixture, alphas = inside("pc-darts", look, space)
    sizes = [1, 2, 3] if space == "nb201" else [2, 3, 4, 5] * 2
    assert [len(group) for group in groups] == sizes
    assert [len(a) for a in alphas[len(mixture) :]] == sizes
    for group, beta in zip(groups, alphas[len(mixture) :], strict=True):
        assert [float(mixture[e].sum()) for e in group] == pytest.approx(beta.softmax(0).tolist())
        assert sum(float(mixture[e].sum()) for e in group) == pytest.approx(1)


def test_edges_are_grouped_by_the_node_that_they_lead_to() -> None:
    class Run:
        space = DARTS()

    groups = edges_by_node(Run())  # type: ignore[arg-type]
    assert groups[:4] == [[e for e, (_, target) in enumerate(EDGES) if target == node] for node in (2, 3, 4, 5)]
    assert groups[4:] == [[14 + e for e in group] for group in groups[:4]]


@pytest.mark.invariant("pc-darts", 3)
def test_alpha_and_beta_rest_until_the_warmup_is_over(train: Train) -> None:
    steps = train("pc-darts[warmup=2,share=2]", "nb201", train={"epochs": 3}).steps
    for step in steps:
        moved = not all(a.equal(b) for a, b in zip(step.before, step.after, strict=True))
        assert moved == (step.epoch >= 2)
    last = steps[-1]
    several = [i for i, a in enumerate(last.before) if len(a) > 1]  # one edge alone has nothing to be weighed against
    assert all(not last.before[i].equal(last.after[i]) for i in several)


@pytest.mark.invariant("pc-darts", 4)
def test_the_architecture_is_read_off_the_products(inside: Any) -> None:
    """In SS1 an edge that beta favours is kept before one whose operation alpha favours."""

    def look(trained: Trained) -> Any:
        method, run = trained.method, trained.run
        for alpha in method._alphas:
            alpha.data.zero_()
        for e in range(14):
            method._alphas[e].data[4] = 1.0 + (EDGES[e][0] < 2)  # alpha alone would keep inputs 0 and 1
        for beta, into in zip(method._alphas[28:32], edges_by_node(run)[:4], strict=True):
            beta.data[len(into) - 1] = beta.data[len(into) - 2] = 5.0
        (choice,) = run.hook.select(run=run)
        return run.space.structures(choice.arch)[0]

    structure = inside("pc-darts", look, "darts")
    kept = [EDGES[e] for e, op in enumerate(structure) if op]
    assert kept == [(0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]


@pytest.mark.parametrize("normalized", [True, False])
def test_without_edge_normalization_it_is_a_softmax_an_edge(inside: Any, normalized: bool) -> None:
    def look(trained: Trained) -> Any:
        return trained.method.mixture(trained.run, "train"), trained.method._alphas

    mixture, alphas = inside(f"pc-darts[edge_normalization={str(normalized).lower()}]", look, "nb201")
    same = [torch.allclose(m, F.softmax(a, 0)) for m, a in zip(mixture, alphas, strict=False)]
    assert all(same) != normalized


def test_a_space_without_partial_channels_is_refused(begin: Train) -> None:
    with pytest.raises(BadInput, match="tiny has no such supernet"):
        begin("pc-darts", "tiny")
    with pytest.raises(BadInput, match=r"nb201\.channels = 2 cannot be divided into 4"):
        NB201(channels=2).partial_supernet(4)
