"""Checks the annotations of attnprobe at each call, as jaxtyping's import hook does, at a fraction of its cost.

The hook decorates every function with ``jaxtyping.jaxtyped``, which at each call binds the arguments to a signature,
opens a scope for the names of axes, and checks the arguments twice. Most functions take and give no array: there are
no axes to compare, and the type checker alone finds the same. Over a whole run of the tests that was a third of their
time. Functions with an array among their annotations, or with an annotation in quotes, are left to jaxtyping.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import jaxtyping
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import AbstractArray, TypeCheckError

_whole = jaxtyping.jaxtyped
_ALONE = "__annotations_checked_alone__"

Checker = Callable[[Any], Any]


def may_hold_array(hint: Any) -> bool:
    """Whether an annotation names an array's shape, or cannot be looked into."""
    if isinstance(hint, str) or hasattr(hint, "__forward_arg__"):
        return True
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    if get_origin(hint) is Literal:
        return False
    return any(map(may_hold_array, hint if isinstance(hint, list) else get_args(hint)))  # a list: of a Callable


def alone(function: Any, checker: Checker) -> Any:
    """The function with the type checker alone, for as long as jaxtyping is not disabled."""
    checked = checker(function)
    if checked is function:  # nothing is annotated
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        try:
            return checked(*args, **kwargs)
        except BeartypeCallHintViolation as error:  # is no TypeError, as the hook's is
            raise TypeCheckError(f"Expected type: {error}") from error

    setattr(call, _ALONE, True)
    return call


def jaxtyped(thing: Any = None, *, typechecker: Checker) -> Any:
    """Stands in for ``jaxtyping.jaxtyped`` while modules are imported."""
    if thing is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(thing):
        init = vars(thing).get("__init__")
        if dataclasses.is_dataclass(thing) and inspect.isfunction(init) and not hasattr(init, _ALONE):
            if any(map(may_hold_array, init.__annotations__.values())):
                return _whole(thing, typechecker=typechecker)
            thing.__init__ = alone(init, typechecker)  # type: ignore[misc]
        return thing
    if inspect.isfunction(thing) and not any(map(may_hold_array, thing.__annotations__.values())):
        return alone(thing, typechecker)
    return _whole(thing, typechecker=typechecker)


def install() -> None:
    """Let modules that the hook imports from now on be decorated so."""
    jaxtyping.jaxtyped = jaxtyped
