"""What a sample ends with leaves its device in few copies."""

import torch

from attnprobe.committing import _together


def test_many_tensors_are_one_of_each_dtype_and_the_same_again() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.rand(2, 3, 1, generator=generator),
        torch.rand(4, 5, generator=generator).half(),
        torch.arange(6, dtype=torch.int32).view(1, 2, 3),
        torch.rand(7, generator=generator),
        torch.rand(2, 0, generator=generator).half(),
        torch.rand(3, 2, generator=generator).half(),
    ]
    whole, split = _together(values)
    assert [(one.dtype, one.numel()) for one in whole] == [
        (torch.float32, 13), (torch.float16, 26), (torch.int32, 6),
    ]  # fmt: skip
    again = split([one.clone() for one in whole])
    for got, want in zip(again, values, strict=True):
        assert got.dtype == want.dtype and torch.equal(got, want)


def test_of_nothing_there_is_nothing_to_copy() -> None:
    whole, split = _together([])
    assert whole == [] and split([]) == []
