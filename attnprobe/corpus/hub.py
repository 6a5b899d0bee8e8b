"""A dataset on the Hugging Face hub: its name, and the revision that a run is of."""

import re
from dataclasses import dataclass
from typing import Any

from attnprobe.errors import AttnprobeError, SelectionError

_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<split>[^@]+))?")


@dataclass(frozen=True)
class Hub:
    """A split of a dataset on the hub.

    Attributes
    ----------
    name, config, split
        As its page on the hub says; no config is the default one.
    revision
        Commit that is read; None until `pinned`.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def label(self) -> str:
        """The name in the form that ``--dataset`` takes."""
        return self.name + (f":{self.config}" if self.config else "") + f"@{self.split}"

    def describe(self) -> dict[str, Any]:
        """What the rows are of, as plain data."""
        return {
            "kind": "hub",
            "name": self.name,
            "config": self.config,
            "split": self.split,
            "revision": self.revision,
        }

    def pinned(self, revision: str | None = None) -> "Hub":
        """The same at one commit: the given one, else the newest.

        Raises
        ------
        AttnprobeError
            If the hub has no such dataset or cannot be reached.
        """
        if revision is None:
            from huggingface_hub import HfApi

            try:
                revision = HfApi().dataset_info(self.name).sha
            except Exception as error:
                raise AttnprobeError(
                    f"cannot read the dataset {self.name}: it is no file here, and the Hugging Face hub does not have "
                    "it or cannot be reached; check the name, log in if it is gated, or give files"
                ) from error
        return Hub(self.name, self.config, self.split, revision)


def read_hub_name(source: str) -> Hub:
    """A dataset by ``name[:config][@split]``.

    Raises
    ------
    SelectionError
        If it is something else.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise SelectionError(
            f"--dataset {source!r} is neither a file nor a name on the hub; write name[:config][@split], as in "
            "wikitext:wikitext-2-raw-v1@test"
        )
    return Hub(match["name"], match["config"], match["split"] or "train")
