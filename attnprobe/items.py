"""From the words of `record` and `plan` to what is kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnprobe.errors import SelectionError
from attnprobe.keep import Item, Measures, Weights

if TYPE_CHECKING:  # measures need torch, which takes seconds to import
    from attnprobe.measures import Measure


def read_items(
    keep: Sequence[Item] | Item | None, measures: "str | Measure | Sequence[str | Measure] | None", **words: Any
) -> list[Item]:
    """The items that ``keep=`` lists, or the one that the keywords are short for.

    Raises
    ------
    SelectionError
        If both are given, nothing would be kept, or a word has no valid form or no meaning.
    """
    if measures is not None:
        words["names"] = measures
    kind_of_item = Weights if measures is None else Measures
    spare = [name for name, value in words.items() if name == "names" or value != getattr(Weights(), name)]
    if keep is None:
        foreign = [name for name in spare if name not in kind_of_item.__dataclass_fields__]
        if foreign:
            raise SelectionError(
                f"{', '.join(foreign)} beside measures= has no meaning, since no weights are kept; to keep both, write "
                "keep=[Weights(...), Measures(...)]"
            )
        return [kind_of_item(**{name: value for name, value in words.items() if name in spare})]
    if spare:
        given = ", ".join(spare).replace("names", "measures")
        hint = ": keep=[..., Measures(...)]" if "names" in spare else ", into its Weights(...)"
        raise SelectionError(f"{given} beside keep= has no meaning; put it into keep{hint}")
    items = [keep] if isinstance(keep, Item) else list(keep)
    if not items:
        raise SelectionError("keep is empty: nothing would be recorded; write keep=[Weights(...)]")
    wrong = next((item for item in items if not isinstance(item, Item)), None)
    if wrong is not None:
        raise SelectionError(f"keep holds {wrong!r}; write keep=[Weights(...), TopK(...), Measures(...)]")
    return items
