"""The axis vocabulary of every signature: ``batch head query key``, ``dim`` for a head's width.

Shapes are written with jaxtyping and checked at run time by the test suite only. Without jaxtyping the annotations
mean the plain tensor or array type, and nothing is checked.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped
    except ImportError:

        class _Unchecked:
            """Stands in for a jaxtyping type: ``Float[Tensor, "..."]`` is ``Tensor``."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = Shaped = _Unchecked

__all__ = ["Bool", "Float", "Int", "Shaped"]
