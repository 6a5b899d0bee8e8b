"""The explorer in a notebook's cell: the front end asks over the widget's own channel, and no port is opened."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, SupportsIndex

from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.explorer.answering import Answering
from attnprobe.explorer.answers import Answers
from attnprobe.explorer.joined import join
from attnprobe.explorer.some import labelled_run
from attnprobe.explorer.state import checked, looking_at, place_of
from attnprobe.explorer.static import static
from attnprobe.explorer.thumbnail import thumbnail
from attnprobe.fields import Sample
from attnprobe.run import Run
from attnprobe.store.base import Reader

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise AttnprobeError("the explorer in a notebook needs anywidget: pip install attnprobe[notebook]") from error

HEIGHT = 600
LEAST, MOST = 200, 10_000  # pixels


@cache
def script() -> str:
    """The front end as one module, as anywidget takes it."""
    return join(static(), "main.js", "explorer") + "export default { render: explorer.render };\n"


class Explorer(anywidget.AnyWidget):  # type: ignore[misc]
    """The explorer in a notebook.

    Questions are answered on the kernel's own thread: that messages may be sent from others, no front end promises.
    What is shown is never part of the widget's state, so a saved notebook holds a small picture and no weights.

    Attributes
    ----------
    state
        What is looked at, by the names that a link has. It follows what is done in the notebook,
        and setting it (``view.state = {**view.state, "head": 3}``) changes what is shown.
    height
        In pixels.
    """

    state = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(HEIGHT, min=LEAST, max=MOST).tag(sync=True)

    def __init__(self, answers: Answering, state: Mapping[str, Any], height: int = HEIGHT, title: str = "") -> None:
        self._answers, self._title = answers, title
        super().__init__(state=dict(state), height=height)
        self.on_msg(self._answer)

    @property
    def _esm(self) -> str:
        return script()

    @property
    def _css(self) -> str:
        return static()["style.css"]

    @traitlets.validate("state")  # type: ignore[untyped-decorator]
    def _checked(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        return checked(proposal["value"])

    def _answer(self, _: object, message: object, buffers: object) -> None:
        """Answer a question of the front end; what is none was sent by something else."""
        if not isinstance(message, dict) or not isinstance(message.get("name"), str) or "id" not in message:
            return
        params = message.get("params", {})
        frame = self._answers.ask(message["name"], params if isinstance(params, dict) else {})
        self.send({"id": message["id"]}, [frame])

    @cached_property
    def _picture(self) -> bytes | None:
        return thumbnail(self._answers, self.state)

    def __repr__(self) -> str:
        """Say of what."""
        return f"<explorer of {self._title}>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and what stands in its place where there is no kernel: a picture and a line."""
        bundle = super()._repr_mimebundle_(**options)
        data, more = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = {**(data or {}), "text/plain": repr(self)}
        if self._picture is not None:
            data["image/png"] = b64encode(self._picture).decode("ascii")
        return data, more


def explore(
    run: Run,
    layer: SupportsIndex | str | None = None,
    head: SupportsIndex | None = None,
    height: int = HEIGHT,
    state: Mapping[str, Any] | None = None,
) -> Explorer:
    """The explorer of a run; `Run.view` says what the parameters are.

    Raises
    ------
    NotKept
        If nothing was kept of the sample, layer or head.
    SelectionError
        If `state` has names that are none or values that are none of theirs, or `height` is out of range.
    """
    if not LEAST <= height <= MOST:
        raise SelectionError(f"height={height}: give {LEAST} to {MOST:,} pixels")
    state = checked(state or {})
    shown = {**looking_at(run, state.get("sample", 0), layer, head), **state}
    where = ", ".join(f"{name} {shown[name]}" for name in ("sample", "site", "head") if name in shown)
    return Explorer(Answers.of([run]), shown, height, f"{run!r}" + (f"; {where}" if where else ""))


def explore_sample(
    reader: Reader,
    sample: Sample,
    layer: SupportsIndex | str | None,
    head: SupportsIndex | None,
    height: int,
    state: Mapping[str, Any],
    labels: Mapping[str, Sequence[str]],
) -> Explorer:
    """The explorer of the run that a sample is of, with this sample first, and `labels` of its sequences' tokens."""
    run = Run(reader, getattr(reader, "fidelity", None))
    state = {"sample": place_of(run, sample), **state}
    return explore(labelled_run(run, sample, labels) if labels else run, layer, head, height, state)
