"""How spread a row is."""

import torch
from torch import Tensor

from attnprobe.measures.base import SINK, row_measure
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float

PIECE = 1 << 19  # numbers that stay in the cores' own caches
SMALLEST = torch.finfo(torch.float32).tiny  # its product with its logarithm is far below any tolerance


@row_measure(
    unit="nats",
    formula="-sum_j w_ij ln w_ij",
    source="Shannon 1948; of attention: Ghader and Monz 2017 (arXiv:1710.03348)",
)
def entropy(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Shannon entropy of the row as it is, in nats: 0 where one key has everything, ln n over n equal keys."""
    weights = rows.weights
    found = weights.new_empty(weights.shape[:2])
    width = max(1, weights.shape[2])
    tall = max(1, PIECE // width)  # rows at a time, and heads where rows are few, so that the passes meet in cache
    several = max(1, PIECE // (width * max(1, min(tall, weights.shape[1]))))
    for head in range(0, weights.shape[0], several):
        for row in range(0, weights.shape[1], tall):
            part = weights[head : head + several, row : row + tall]
            memory = rows.scratch.take("entropy", tuple(part.shape), torch.float32, part.device)
            # Clamped first, because the logarithm of zero is slow, and no number once it is multiplied by zero.
            torch.clamp(part, min=SMALLEST, out=memory).log_().mul_(part)
            torch.sum(memory, -1, out=found[head : head + several, row : row + tall])
    return 0 - found  # its negative would be -0.0 where one key has everything


@row_measure(
    unit="nats",
    formula="-sum_j w_ij ln w_ij - s_i ln s_i, with s_i the sink's mass",
    source="Shannon 1948; learned sinks: OpenAI 2025, gpt-oss model card (arXiv:2508.10925)",
    needs=(SINK,),
)
def entropy_with_sink(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Entropy of the row completed by the sink's mass, in nats; without a sink the same as `entropy`."""
    own = entropy.compute(rows)
    return own if rows.sink is None else own + torch.special.entr(rows.sink)


@row_measure(
    unit="mass",
    formula="s_i = exp(sink) / (exp(sink) + sum_j exp(logit_ij)) = 1 - sum_j w_ij",
    source="OpenAI 2025, gpt-oss model card (arXiv:2508.10925)",
    needs=(SINK,),
)
def sink_mass(rows: SampleRows) -> Float[Tensor, "head query"]:
    """The share of a row that a learned sink takes; 0 where there is none."""
    return torch.zeros_like(rows.peak) if rows.sink is None else rows.sink
