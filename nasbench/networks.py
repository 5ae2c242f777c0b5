"""Plain networks: the files that a choice leaves beside its record, and what a network reaches on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nasbench.errors import BadInput
from nasbench.files import dump_json, write_atomic

if TYPE_CHECKING:
    from nasbench.records import Choice
    from nasbench.running import Run
    from nasbench.space import Arch, SearchSpace


def save_files(choice: Choice, folder: Path, index: int) -> dict[str, str]:
    """Write the network and the artefact of a run's choice; says where, relative to the folder."""
    written = {}
    if choice.artefact is not None:
        written["arch_file"] = f"choices/{index}.json"
        write_atomic(folder / written["arch_file"], dump_json(choice.artefact))
    if choice.network is not None:
        written["network"] = f"choices/{index}.safetensors"
        state = {name: value.detach().cpu().contiguous().clone() for name, value in choice.network.state_dict().items()}
        write_atomic(folder / written["network"], save(state))
    return written


def load_network(space: SearchSpace, arch: Arch, path: Path) -> torch.nn.Module:
    """The plain network of an architecture with the weights that `save_files` wrote, ready to evaluate.

    Raises BadInput for a network that `space.build` does not make, as of a method that cuts filters out of cells.
    """
    network = space.build(arch)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is damaged ({error}); run its command again with --force.") from None
    except RuntimeError:
        raise BadInput(
            f"{path} is no {space.name} network as its architecture alone says: the method cut it to widths of its "
            f"own, which {path.with_suffix('.json').name} beside it tells."
        ) from None
    return network.eval()


def top1(run: Run, network: torch.nn.Module, split: Literal["valid", "test"]) -> float:
    """Top-1 (%) of a plain network, with its running statistics, on the run's images of a split."""
    network = run.to_device(network).eval()
    right = 0
    with torch.inference_mode():
        batches = run.data.batches(split, run.recipe.score.batch_size)
        for batch in batches:
            right += int((run.predict(network, batch.images).argmax(-1) == batch.labels).sum())
    return 100 * right / sum(len(batch.labels) for batch in batches)
