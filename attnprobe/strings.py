"""Token ids to strings: as the tokenizer shows them, and as text."""

from typing import Any


class Strings:
    """Looks each id up once.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, str]] = {}

    def __call__(self, ids: list[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tokens (``Ġexplore``) and texts (``" explore"``) of ids; empty where an id is unknown (-1)."""
        pairs = [self._look_up(number) for number in ids]
        return tuple(token for token, _ in pairs), tuple(text for _, text in pairs)

    def _look_up(self, number: int) -> tuple[str, str]:
        if number not in self._known:
            if number < 0:
                return "", ""
            token = self._tokenizer.convert_ids_to_tokens([number])[0]
            text = self._tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            self._known[number] = ("" if token is None else str(token), str(text))
        return self._known[number]
