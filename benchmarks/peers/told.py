"""Errors in a few words."""

NOTHING = "no weights to compare"  # of a peer that gives none by design


def told(problem: BaseException, limit: int = 90) -> str:
    """The last line of an error that says something, shortened."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    text = lines[-1] if lines else type(problem).__name__
    text = text.replace("|", "/")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def out_of_memory(problem: BaseException) -> bool:
    """Whether an error is that: torch's allocators have several, and tools wrap them."""
    text = str(problem).lower()
    return isinstance(problem, MemoryError) or "out of memory" in text or "can't allocate memory" in text
