"""The classic kinds of heads, by score. Pure.

A kind is a name for what a head mostly does on the tokens that were recorded, and a threshold is a convention, nothing
that was measured: a head just below it does the same a little less. Scores of one text are scores of that text.

Thresholds are those of C. McDougall's ARENA 2.0 (chapter 1.2, Intro to Mechanistic Interpretability, solutions:
``prev_attn_detector``, ``first_attn_detector``, ``induction_attn_detector``). Its induction score is of random tokens
that come twice, where every row of the second copy has exactly one match; the measure here averages over all rows whose
token came before, and on plain text heads score lower.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_ARENA = "ARENA 2.0, chapter 1.2"


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Attributes
    ----------
    name
        ``"induction"``, ``"previous-token"``, ``"duplicate"`` or ``"first-token"``.
    measure
        The measure whose mean over rows is the score.
    threshold
        A head with a larger score is of this kind.
    meaning
        What such a head looks at.
    source, threshold_source
        Where kind and threshold come from.
    """

    name: str
    measure: str
    threshold: float
    meaning: str
    source: str
    threshold_source: str


# Rare and telling ones first: in most models, most heads look at the first token.
KINDS = (
    Kind(
        "induction",
        "induction",
        0.4,
        "what followed the same token earlier",
        "Olsson et al. 2022 (arXiv:2209.11895)",
        f"{_ARENA}, there on random tokens that come twice",
    ),
    Kind(
        "previous-token",
        "previous",
        0.4,
        "the token before",
        "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
        _ARENA,
    ),
    Kind(
        "duplicate",
        "duplicate",
        0.4,
        "the same token earlier",
        "Wang et al. 2022 (arXiv:2211.00593)",
        "none is published; that of the others (goodfire-ai/spd marks 0.3)",
    ),
    Kind(
        "first-token",
        "first_mass(1)",
        0.4,
        "the first token",
        "Xiao et al. 2023 (arXiv:2309.17453)",
        f"{_ARENA} (Gu et al. 2025, arXiv:2410.10781: 0.3)",
    ),
)


def kinds_of(scores: Mapping[str, float]) -> tuple[Kind, ...]:
    """The kinds that a head is of, none or several.

    Parameters
    ----------
    scores
        Means over rows, by measure; those that are absent or NaN name no kind.
    """
    return tuple(kind for kind in KINDS if scores.get(kind.measure, 0.0) > kind.threshold)
