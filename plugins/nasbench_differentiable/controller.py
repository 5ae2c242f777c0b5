"""The controller of ENAS and CTNAS: an LSTM that decides one decision after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Controller(nn.Module):
    """A call draws an architecture: the place of each decision's option, the log-probability and the entropy (nats).

    `layers` LSTM layers of `size`, ENAS's unless told; the option drawn is embedded and read at the next decision.
    Logits are 2.5 tanh(z / 5), so that no option is out of reach. Weights begin uniform within 0.1.
    """

    def __init__(self, options: list[int], size: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, 1, size))
        self.lstm = nn.LSTM(size, size, layers)
        self.heads = nn.ModuleList(nn.Linear(size, count) for count in options)
        self.embeddings = nn.ModuleList(nn.Embedding(count, size) for count in options)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, rng: torch.Generator) -> tuple[list[int], Tensor, Tensor]:
        x, state, places = self.start, None, []
        log_prob = entropy = self.start.new_zeros(())
        for head, embedding in zip(self.heads, self.embeddings, strict=True):
            y, state = self.lstm(x, state)
            logs = (2.5 * torch.tanh(head(y[0, 0]) / 5)).log_softmax(0)
            place = torch.multinomial(logs.detach().exp().cpu(), 1, generator=rng).to(x.device)
            places.append(int(place))
            log_prob, entropy = log_prob + logs[place[0]], entropy - (logs.exp() * logs).sum()
            x = embedding(place)[None]
        return places, log_prob, entropy
