"""Many texts: rows of files or of a dataset on the hub, streamed, shared among workers, batched by length."""

from attnprobe.corpus.batches import LONG, Batcher, Piece, Tally
from attnprobe.corpus.files import Files, find_files
from attnprobe.corpus.hub import Hub, read_hub_name
from attnprobe.corpus.rows import Corpus, Row

__all__ = ["LONG", "Batcher", "Corpus", "Files", "Hub", "Piece", "Row", "Tally", "find_files", "read_hub_name"]
