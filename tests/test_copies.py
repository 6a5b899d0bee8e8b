"""Copies to the host: in order, within their bound, and out of pinned memory where they stay."""

import threading
from typing import Any

import pytest
import torch

from attnprobe.copies import Copies
from attnprobe.fields import HUGE


class OnDevice(torch.Tensor):
    """On the CPU, and says that it is on a device."""

    @property
    def device(self) -> Any:
        return torch.device("cuda", 0)


class Event:
    """An event that happens when it is told to, or is waited for."""

    def __init__(self) -> None:
        self.happened = threading.Event()
        self.waited: list[str] = []

    def query(self) -> bool:
        return self.happened.is_set()

    def synchronize(self) -> None:
        self.waited.append(threading.current_thread().name)
        self.happened.set()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events of the copies, which are there at once and arrive when their event does."""
    made: list[Event] = []

    def copy(self: Copies, tensor: torch.Tensor, aside: bool) -> Any:
        made.append(Event())
        return tensor.as_subclass(torch.Tensor).clone(), made[-1]

    monkeypatch.setattr(Copies, "_copy", copy)
    return made


def on_device(numbers: int, value: float = 1.0) -> Any:
    return torch.full((numbers,), value).as_subclass(OnDevice)


def test_copies_call_back_in_order_and_only_what_has_arrived(events: list[Event]) -> None:
    copies, landed = Copies(1 << 20), []
    for value in (1.0, 2.0):
        copies.put([on_device(3, value), None], lambda *found: landed.append(found))
    events[1].happened.set()
    copies.land(wait=False)
    assert landed == [] and len(copies) == 2  # the second one waits for the first
    events[0].happened.set()
    copies.land(wait=False)
    assert [float(found[0][0]) for found in landed] == [1.0, 2.0] and landed[0][1] is None


def test_beyond_the_bound_the_oldest_copy_is_waited_for(events: list[Event]) -> None:
    copies, landed = Copies(100), []
    for value in (1.0, 2.0, 3.0):
        copies.put([on_device(10, value)], lambda found: landed.append(float(found[0])))
    assert landed == [1.0] and events[0].waited == ["MainThread"] and len(copies) == 2


def test_within_a_call_back_nothing_is_waited_for(events: list[Event]) -> None:
    copies, landed = Copies(100), []
    copies.put([on_device(20)], lambda found: landed.append("first"))
    copies.put([on_device(20)], lambda found: landed.append("second"), land=False)
    assert landed == [] and len(copies) == 2
    copies.land(wait=True)
    assert landed == ["first", "second"]


@pytest.mark.parametrize("kept", [False, True])
def test_what_stays_in_memory_is_brought_there_by_another_thread(kept: bool, events: list[Event]) -> None:
    copies, landed = Copies(1 << 30, kept), []
    copies.put([on_device(HUGE // 4, 5.0), on_device(2, 6.0)], lambda *found: landed.extend(found))
    copies.put([on_device(2, 7.0)], landed.append)
    copies.land(wait=True)
    assert [float(one[-1]) for one in landed] == [5.0, 6.0, 7.0]
    names = [event.waited[0] for event in events]
    assert all(name.startswith("attnprobe-copies") for name in names[:2]) is kept
    assert names[2] == "MainThread"
    copies.close()


def test_a_call_back_that_fails_is_gone_and_the_others_go_on(events: list[Event]) -> None:
    copies, landed = Copies(1 << 20, True), []

    def fail(found: torch.Tensor) -> None:
        raise ValueError("not this one")

    copies.put([on_device(HUGE // 4)], fail, land=False)
    copies.put([on_device(3)], landed.append, land=False)
    with pytest.raises(ValueError, match="not this one"):
        copies.land(wait=True)
    copies.land(wait=True)
    assert len(landed) == 1 and len(copies) == 0
    copies.close()


def test_copies_of_the_host_are_handed_over_as_they_are() -> None:
    copies, landed, values = Copies(1), [], torch.arange(4.0)
    copies.put([values], landed.append)
    assert landed[0] is values and len(copies) == 0
