"""Networks cut to some of their channels: by hand for deployment, on the fly for weight sharing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torch import Tensor, nn

from nasbench import Arch, BadInput

if TYPE_CHECKING:
    from nasbench_backbones.channels import ChannelSpace, Kept


def slice_state(space: ChannelSpace, state: Mapping[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Parameters and buffers of the network at full width, cut to the kept channels of every gate."""
    cut = dict(state)
    for layer in space.layers:
        own = [f"{name}.{part}" for name in (layer.name, layer.norm) for part in PARTS]
        if layer.target:
            cut |= {name: cut[name][kept[layer.target]] for name in own if name in cut}
        if layer.source:
            cut[f"{layer.name}.weight"] = cut[f"{layer.name}.weight"][:, kept[layer.source]]
    return cut


#: What a layer and its batch norm have one of for each output channel.
PARTS = ("weight", "bias", "running_mean", "running_var")


class Supernet(nn.Module):
    """All widths in one set of weights: `net(images [B,C,H,W], archs) -> logits [n,B,K]`.

    A subnet takes the first channels of every layer. Batch statistics always, so a subnet's output depends on
    its batch.
    """

    def __init__(self, space: ChannelSpace) -> None:
        super().__init__()
        self.space = space
        self.backbone = space.backbone()

    def forward(self, images: Tensor, archs: list[Arch]) -> Tensor:
        return torch.stack([self._subnet(images, arch) for arch in archs])

    def _subnet(self, images: Tensor, arch: Arch) -> Tensor:
        if not isinstance(arch, tuple):
            raise BadInput(f"{self.space.name} trains single subnets, and the method trains mixtures.")
        widths = self.space.widths(arch)
        with torch.device("meta"):  # shapes alone: the weights are the supernet's
            skeleton = self.space.make(widths, running_statistics=False).train(self.training)
        parameters = dict(self.backbone.named_parameters())
        state = slice_state(self.space, parameters, {gate: slice(k) for gate, k in widths.items()})
        return torch.func.functional_call(skeleton, state, (images,))


def load_pretrained(net: nn.Module, name: str) -> None:
    """Take torchvision's ImageNet weights wherever their shapes fit: all but the layers for other images or classes."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise BadInput(
            f"torchvision's weights of {name} could not be downloaded ({error}); fetch {weights.url} elsewhere and "
            f"put it into {folder}, or leave `pretrained` off."
        ) from None
    own = net.state_dict()
    net.load_state_dict({**own, **{k: v for k, v in state.items() if k in own and v.shape == own[k].shape}})
