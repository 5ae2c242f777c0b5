"""EAS: Elastic Architecture Search for Efficient and Diverse Deployment, arXiv:2108.01224.

A supernet trained with superclass dropout, and a generator that answers a budget and a superclass at once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr

from nasbench import Arch, Run, hookimpl
from nasbench.data import Batch
from nasbench_eas.deployment import Deployment, Scenario
from nasbench_eas.elastic import elastic
from nasbench_eas.generator import Encoding, Generator, draw_legal, gate_probabilities, relax
from nasbench_eas.superclass_dropout import SuperclassDropout


class EAS(Deployment):
    """Train the generator on validation images through the frozen supernet (Algorithm 1); draw, and take the best."""

    at_once: ClassVar[bool] = True

    q: float = Field(0.6, ge=0, le=1)
    """Superclass dropout: the probability of each superclass but an image's own to be dropped."""
    encoding: Encoding = "single_path"
    """Nested gates in one path of shared weights, or a weighted sum of every option's path (the ablation of Fig. 5)."""
    budget_range: tuple[float, float] = (0.27, 0.97)
    """Budgets that the generator is trained for: MAdds, or, up to 1, shares of the largest architecture's."""
    anchors: int = Field(10, ge=2)
    """Budgets with an embedding of their own (K)."""
    embedding: int = Field(32, ge=1)
    """Size of the embeddings of a budget and of a superclass."""
    hidden: int = Field(64, ge=1)
    """Size of the LSTM; the paper is silent."""
    epochs: int = Field(90, ge=1)
    """Passes over the validation images that are not held out."""
    batch_size: int = Field(256, ge=1)
    """Images a step, all of one superclass; the paper is silent."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam."""
    penalty: float = Field(0.01, ge=0)
    """Weight of the budget loss (lambda)."""
    unit: float | None = Field(None, gt=0)
    """MAdds in which the budget loss counts; the paper's are millions. null scales them with the space: the largest
    architecture counts 566.170656, as the paper's at 1000 classes."""
    tau: float = Field(1.0, gt=0)
    """Temperature of the relaxation."""
    samples: int = Field(10, ge=1)
    """Architectures inside the budget among which the held-out images decide; the paper is silent."""
    draws: int = Field(1000, ge=1)
    """Draws a scenario at most; if none was inside, the most probable gates are closed until they are."""
    _generator: Generator | None = PrivateAttr(None)
    _dropout: SuperclassDropout | None = PrivateAttr(None)

    # ------------------------------------------------------------------ the supernet

    def dropout(self) -> SuperclassDropout:
        """The modifier with this method's options."""
        self._dropout = self._dropout or SuperclassDropout(q=self.q, superclasses=self.superclasses)
        return self._dropout

    def terms(self, run: Run) -> dict[str, dict[str, Any]]:
        return {**super().terms(run), "superclass-dropout": self.dropout().model_dump(mode="json")}

    @hookimpl
    def prepare_batch(self, run: Run, batch: Batch) -> Batch:
        return self.dropout().prepare_batch(run, batch)

    # ------------------------------------------------------------------ the generator

    @hookimpl
    def train(self, run: Run) -> bool:
        super().train(run)
        with run.seeded("generator"):
            self._generator = self.fresh(run)
        run.stage("generator", lambda: self.learn(run))
        return True

    def fresh(self, run: Run) -> Generator:
        """A generator of the right sizes."""
        space = elastic(run)
        return Generator(
            len(self.of(run)) if self.per_superclass else 1,
            *(self.in_madds(run, b) for b in self.budget_range),
            encoding=self.encoding,
            blocks=len(space.elastic["kernel"]),
            units=len(space.elastic["depth"]),
            anchors=self.anchors,
            embedding=self.embedding,
            hidden=self.hidden,
        )

    def learn(self, run: Run) -> None:
        """Algorithm 1; the supernet's weights are frozen, and its batch norms take batch statistics and keep none."""
        assert self._generator is not None
        assert run.net is not None
        generator, superclasses, (rows, _) = self._generator.to(run.device), self.of(run), self.validation(run)
        adam = run.track("adam", torch.optim.Adam(generator.parameters(), lr=self.lr))
        of = superclasses.of_classes().to(run.device)[run.data.valid.labels[rows]]
        pools = [rows[of == t] for t in range(len(superclasses))]
        low, high = generator.anchors[0].item(), generator.anchors[-1].item()
        run.net.requires_grad_(False)
        for _ in run.steps(self.epochs * -(-len(rows) // self.batch_size)):
            rng = run.rng("scenario")
            t, budget = rng.randrange(len(superclasses)), rng.uniform(low, high)
            order = torch.randperm(len(pools[t]), generator=run.generator("images"))[: self.batch_size]
            batch = run.data.batch("valid", pools[t][order.to(run.device)])
            z = self.logits(run, [Scenario(budget, t)])[0]
            mixture = relax(z, torch.rand(z.shape, generator=run.generator("gates")).to(z), self.tau)
            loss, cost = self.loss(run, batch, mixture, t, budget)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            run.info = {"loss": loss.detach(), "over": (cost.detach() - budget) / high}
        run.net.requires_grad_(True)

    def loss(
        self, run: Run, batch: Batch, mixture: torch.Tensor, t: int, budget: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy among the superclass' classes plus the budget's loss (Eq. 3, 4), and the mixture's MAdds."""
        space, group = elastic(run), torch.tensor(self.of(run).groups[t], device=run.device)
        asked = space.nested(mixture) if self.encoding == "single_path" else list(mixture)
        logits = run.forward(batch.images, [asked])[0][:, group]
        labels = (batch.labels[:, None] == group).int().argmax(1)
        cost = space.expected_madds(mixture.double())
        unit = self.unit or run.space.cost_range("madds")[1] / 566.170656
        return F.cross_entropy(logits, labels) + self.penalty * ((cost - budget) / unit) ** 2, cost

    def logits(self, run: Run, scenarios: list[Scenario]) -> torch.Tensor:
        """What the generator says of scenarios, in one pass: [M, decisions, 2 or 3]."""
        assert self._generator is not None
        budgets = torch.tensor([s.budget for s in scenarios], dtype=torch.float64, device=run.device)
        asked = [s.superclass if self.per_superclass and s.superclass is not None else 0 for s in scenarios]
        answer: torch.Tensor = self._generator(budgets, torch.tensor(asked, device=run.device))
        return answer

    def propose(self, run: Run, scenarios: list[Scenario], rng: torch.Generator) -> list[list[Arch]]:
        with torch.inference_mode():
            p = gate_probabilities(self.logits(run, scenarios)).cpu()
            return draw_legal(run.space, p, [s.budget for s in scenarios], self.samples, self.draws, rng)

    def selected_on(self) -> str:
        return f"supernet validation top-1, best of at most {self.samples} generated"

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {} if self._generator is None else {"generator": self._generator.state_dict()}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        if self._generator is not None and "generator" in state:
            self._generator.load_state_dict(state["generator"])


class EASV(EAS):
    """EAS-V (Table E): the generator is told the budget alone, and one architecture serves all superclasses."""

    per_superclass: ClassVar[bool] = False
