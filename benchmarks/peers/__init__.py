"""attnprobe beside other tools that give attention weights."""

from benchmarks.peers.driver import measure
from benchmarks.peers.show import TABLES, draw

__all__ = ["TABLES", "draw", "measure"]
