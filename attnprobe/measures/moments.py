"""Mean, spread and count of row measures over valid rows, as they come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.shapes import Float


@dataclass
class Moments:
    """Of several measures at once: ``[measure, head]`` each; ``m2`` is the sum of squared differences from the mean.

    Groups of rows are united by Chan, Golub and LeVeque 1983, which does not cancel.
    """

    count: Float[Tensor, "measure head"]
    mean: Float[Tensor, "measure head"]
    m2: Float[Tensor, "measure head"]

    @classmethod
    def of(cls, values: Float[Tensor, "measure head query"]) -> "Moments":
        """Of some rows, NaN being none."""
        there = ~values.isnan()
        count = there.sum(-1).to(values.dtype)
        mean = values.nansum(-1) / count.clamp(min=1)
        m2 = torch.where(there, (values - mean[..., None]).square(), 0.0).sum(-1)
        return cls(count, mean, m2)

    def merge(self, other: "Moments") -> "Moments":
        """Of both."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        m2 = self.m2 + other.m2 + apart.square() * self.count * share
        return Moments(count, self.mean + apart * share, m2)

    def finalize(self) -> Float[Tensor, "measure head 3"]:
        """Mean, standard deviation (of these rows, not of a population) and count; NaN where no row counts."""
        none = self.count == 0
        mean, spread = self.mean.masked_fill(none, torch.nan), (self.m2 / self.count).clamp(min=0).sqrt()
        return torch.stack([mean, spread, self.count], -1)
