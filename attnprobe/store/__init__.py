"""Where fields go and come from. Memory and the run directory keep one contract (tests/store_contract.py)."""

from attnprobe.store.base import Manifest, Reader, Writer
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.reading import read_rows

__all__ = ["DirectoryReader", "DirectoryWriter", "Manifest", "MemoryStore", "Reader", "Writer", "read_rows"]
