"""What is measured: the shape of a model, lengths, modes. Read from words, checked before anything runs."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnprobe.errors import SelectionError
from attnprobe.planning.words import parse_tokens

_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)(?::(\d+))?")
DTYPES = "float32", "bfloat16", "float16"


@dataclass(frozen=True)
class Shape:
    """Of a random decoder.

    Attributes
    ----------
    layers, heads, dim
        How many layers, query heads a layer, and numbers a head.
    kv_heads
        Key-value heads of a model like Llama's; None for one like GPT-2.
    """

    layers: int
    heads: int
    dim: int
    kv_heads: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """``"12x12x64"``, ``"32x32x128:8"``.

        Raises
        ------
        SelectionError
            If it has another form, or no model has this shape.
        """
        match = _SHAPE.fullmatch(text.strip())
        numbers = [int(part) if part else None for part in match.groups()] if match else [0]
        if 0 in numbers:
            raise SelectionError(
                f"shape {text!r}: write LAYERSxHEADSxDIM, 12x12x64, for a model like GPT-2, or LAYERSxHEADSxDIM:KV, "
                "32x32x128:8, for one like Llama with KV key-value heads"
            )
        layers, heads, dim, kv_heads = numbers
        assert layers is not None and heads is not None and dim is not None
        if kv_heads is not None and (heads % kv_heads or dim % 2):
            raise SelectionError(f"shape {text!r}: heads are a multiple of key-value heads, and DIM is even")
        return cls(layers, heads, dim, kv_heads)

    def __str__(self) -> str:
        return f"{self.layers}x{self.heads}x{self.dim}" + ("" if self.kv_heads is None else f":{self.kv_heads}")


@dataclass(frozen=True)
class Setting:
    """Of a benchmark.

    Attributes
    ----------
    model
        Its shape, or its name.
    lengths, batch
        Tokens of each sample, ascending, and samples that run together.
    modes
        Names, and the longest length of each, or None.
    dtype, device, attention, engine, budget
        How the model runs, and how it is recorded; `budget` in bytes.
    rounds, seconds
        How often each mode is timed at a length; it takes part in no further round after so many seconds.
    memory
        Whether peaks of memory are measured.
    """

    model: str
    lengths: tuple[int, ...]
    batch: int
    modes: tuple[tuple[str, int | None], ...]
    dtype: str
    device: str
    attention: str
    engine: str
    budget: int
    rounds: int
    seconds: float
    memory: bool

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name, least, words in (("batch", 1, "one sample"), ("rounds", 1, "one round")):
            if getattr(self, name) < least:
                raise SelectionError(f"{name}={getattr(self, name)}: at least {words} is needed")
        if not self.seconds > 0:
            raise SelectionError(f"seconds={self.seconds}: some time is needed")

    def modes_of(self, length: int) -> tuple[str, ...]:
        """Names of the modes that are measured at a length."""
        return tuple(name for name, longest in self.modes if longest is None or length <= longest)

    def describe(self) -> dict[str, Any]:
        """In plain data."""
        return {**asdict(self), "lengths": [*self.lengths], "modes": [[*mode] for mode in self.modes]}

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Setting":
        """What `describe` gave."""
        modes = tuple((name, longest) for name, longest in found["modes"])
        return cls(**{**found, "lengths": tuple(found["lengths"]), "modes": modes})


def parse_lengths(tokens: int | str | Sequence[int | str]) -> tuple[int, ...]:
    """Lengths, ascending: of ``"1k,4k"`` (k is 1024), a number, or several.

    Raises
    ------
    SelectionError
        If one is not a number of tokens.
    """
    parts = tokens.split(",") if isinstance(tokens, str) else [tokens] if isinstance(tokens, int) else tokens
    if not parts:
        raise SelectionError('tokens: name at least one length, as in "1k,4k,16k"')
    return tuple(sorted({parse_tokens(part)[0] for part in parts}))


def parse_modes(modes: str | Sequence[str], known: Sequence[str]) -> tuple[tuple[str, int | None], ...]:
    """Modes and their longest lengths, of ``"measures,weights:8k"``. Always with `off`, which comes first.

    Raises
    ------
    SelectionError
        If one is unknown, or is there twice.
    """
    parts = [part.strip() for part in (modes.split(",") if isinstance(modes, str) else modes)]
    found: dict[str, int | None] = {"off": None}
    for part in parts:
        name, colon, longest = (word.strip() for word in part.partition(":"))
        if name not in known:
            raise SelectionError(
                f"there is no mode {name!r}; there are {', '.join(known)}; MODE:8k measures one up to 8k tokens"
            )
        if name in found and name != "off":
            raise SelectionError(f"mode {name!r} is named twice")
        if name == "off" and colon:
            raise SelectionError(f"mode {part!r}: off is measured at every length, since all ratios are over it")
        found[name] = parse_tokens(longest)[0] if colon else None
    if len(found) == 1 and not parts:
        raise SelectionError(f"no mode is named; there are {', '.join(known)}")
    return tuple(found.items())
