"""jacob_cov: Mellor, Turner, Storkey and Crowley, Neural Architecture Search without Training, arXiv:2006.04647v1."""

from __future__ import annotations

import torch
from pydantic import Field

from nasbench import Arch, Run
from nasbench_zerocost.proxy import ImageProxy, gradients


class JacobCov(ImageProxy):
    """-sum of log(s + k) + 1/(s + k) over the eigenvalues s of the correlations between the images' Jacobians, the
    gradients of the summed logits: images that the network tells apart are uncorrelated, s = 1 the best."""

    k: float = Field(1e-5, gt=0)
    """Keeps an eigenvalue of 0 finite."""

    def measure(self, run: Run, arch: Arch) -> float:
        net, (batch,) = self.network(run, arch), self.batches(run)
        images = batch.images.requires_grad_()
        (jacobian,) = gradients(net(images).sum(), [images])
        correlations = torch.corrcoef(jacobian.flatten(1).double())
        if not correlations.isfinite().all():  # an image without a gradient has no correlation
            return float("nan")
        s = torch.linalg.eigvalsh(correlations) + self.k
        return -float((s.log() + 1 / s).sum())
