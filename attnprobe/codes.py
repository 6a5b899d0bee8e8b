"""What the values of a field are stored as: floats as they are, or in one byte a weight, a code of its logarithm.

``"log-uint8"``: code 0 is 0, codes 1 to 254 are ``2 ** ((code - 254) * 24 / 253)``, from 2**-24 to 1, code 255 is NaN.
A weight becomes the nearest code in the logarithm. What is read differs from what was kept by at most `BOUND` of it
(3.35 %) where it is at least `LEAST`, and by at most `LEAST` where it is below. 0 and 1 are kept exactly.
"""

from typing import TYPE_CHECKING

import numpy as np

from attnprobe.shapes import Shaped

if TYPE_CHECKING:  # reading a run takes no torch
    import torch

# The torch dtype of a field's values.
STORED_AS = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int32": "int32",
    "log-uint8": "uint8",
}
OCTAVES, CODES = 24, 253  # codes 1 to 254 are so many steps over so many powers of two
ONE, NAN = 254, 255  # the codes of 1 and of NaN
LEAST = 2.0**-OCTAVES  # the value of code 1
HALF_STEP = 2 ** (OCTAVES / CODES / 2)
BOUND = HALF_STEP - 1  # relative error at most
SMALLEST = LEAST / HALF_STEP  # what is below becomes 0
# Half a code would put halfway weights up or down as rounding errors of their logarithms go, and up is where the error
# is largest. So slightly less than half a code: they go down, and the bound holds exactly.
_ROUND = 0.5 - 2.0**-12
_AT_ONCE, _AT_ONCE_ON_DEVICE = 1 << 17, 1 << 22  # weights that are encoded together: a cache's worth; a kernel's
_READ_AT_ONCE = 1 << 15
WORKING = 4 * _AT_ONCE  # bytes that encoding works in at most, on a CPU
_TABLE = np.exp2((np.arange(256) - ONE) * OCTAVES / CODES).astype(np.float32)
_TABLE[0], _TABLE[NAN] = 0.0, np.nan
_NO_NUMBER = 0x7C00  # the bits of a float16 from which on it is infinite, NaN, or below zero
_SMALLER, _LARGER = np.full(1, 2.0**-130, np.float32), np.float32(2.0**112)  # what exponents of the two differ by


def encode(values: "torch.Tensor", dtype: str) -> "torch.Tensor":
    """Values as a field of a dtype stores them, on the device where they are.

    Parameters
    ----------
    values
        Of any number of axes; floats, on any device. They are not changed.
    dtype
        One of `STORED_AS`.

    Returns
    -------
    stored
        Of the torch dtype that `STORED_AS` names; the values themselves where they are of it already. For
        ``"log-uint8"`` codes: what is above 1 becomes the code of 1, and what is below 0, where no weight is, NaN's.
    """
    import torch

    if dtype != "log-uint8":
        stored: torch.Tensor = values.to(getattr(torch, STORED_AS[dtype]))
        return stored
    codes = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    _write_codes(values.detach(), codes, _AT_ONCE if values.device.type == "cpu" else _AT_ONCE_ON_DEVICE)
    return codes


def _write_codes(values: "torch.Tensor", codes: "torch.Tensor", at_once: int) -> None:
    import torch

    if values.numel() > at_once:
        axis = next(axis for axis, length in enumerate(values.shape) if length > 1)
        for part, into in zip(values.chunk(2, axis), codes.chunk(2, axis), strict=True):
            _write_codes(part, into, at_once)
        return
    # Logarithms of half precision would be coarser than codes. NaN passes through `clamp_`.
    logarithms = torch.log2(values.float())
    offset = torch.tensor(ONE + _ROUND, dtype=torch.float32, device="cpu")
    torch.add(offset, logarithms, alpha=CODES / OCTAVES, out=logarithms)
    codes.copy_(logarithms.clamp_(0, ONE).nan_to_num_(nan=NAN))  # what is behind the point is cut off


def decode(array: Shaped[np.ndarray, "..."], dtype: str) -> Shaped[np.ndarray, "..."]:
    """Values from what lies in a file; needs no torch.

    Parameters
    ----------
    array
        As stored: float32, float16 or int32 numbers; the bits of bfloat16 as uint16; the codes of ``"log-uint8"`` as
        uint8.
    dtype
        One of `STORED_AS`.

    Returns
    -------
    values
        Of float16 and int32 as they are; of all others float32.
    """
    if dtype == "bfloat16":
        patterns: np.ndarray = array.astype(np.uint32)
        patterns <<= 16
        return patterns.view(np.float32)
    if dtype == "log-uint8":
        codes, values = array.reshape(-1), np.empty(array.shape, np.float32)
        flat = values.reshape(-1)
        for start in range(0, len(codes), _READ_AT_ONCE):  # numpy looks up by numbers of eight bytes, which it makes
            part = slice(start, start + _READ_AT_ONCE)
            _TABLE.take(codes[part], out=flat[part], mode="wrap")
        return values
    return array


def as_float32(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Floats as float32; of float16 in a tenth of the time that numpy takes, which converts one by one."""
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    bits = values.view(np.uint16)
    exact = (_SMALLER * _LARGER)[0] > 0  # not where a thread takes numbers below the smallest normal one for zero
    if not exact or bits.max(initial=0) >= _NO_NUMBER:
        return values.astype(np.float32)
    wide: np.ndarray = bits.astype(np.uint32)
    wide <<= 13
    floats: np.ndarray = wide.view(np.float32)
    floats *= _LARGER
    return floats
