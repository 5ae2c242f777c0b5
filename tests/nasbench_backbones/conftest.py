"""Spaces small enough to build by the dozen."""

from __future__ import annotations

import pytest
from nasbench_backbones.channels import ChannelSpace
from nasbench_backbones.resnet import ResNet18
from nasbench_backbones.vgg import VGG16


@pytest.fixture(params=["resnet18", "resnet18-imagenet", "vgg16"])
def small(request: pytest.FixtureRequest) -> ChannelSpace:
    """Each space, narrow."""
    made: dict[str, ChannelSpace] = {
        "resnet18": ResNet18(width=5, image=(1, 9, 12)),
        "resnet18-imagenet": ResNet18(width=4, stem="imagenet", classes=7, image=(3, 41, 50)),
        "vgg16": VGG16(width=4, hidden=9, image=(3, 34, 40)),
    }
    return made[request.param]
