"""What one thread said of the forward passes to come: the generation that it is in, the name of the next sample."""

import threading
from dataclasses import dataclass

from attnprobe.lineage import Generation, Lineage


@dataclass
class SampleName:
    """What `rec.sample` says of the sample that starts inside of it."""

    name: str | None = None
    prompt_length: int | None = None
    used: bool = False


class Told(threading.local):
    """What one thread said: the generation that it is in, the lineages grown there, the name of the next sample."""

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self.grown: list[Lineage] = []
        self.name = SampleName()
