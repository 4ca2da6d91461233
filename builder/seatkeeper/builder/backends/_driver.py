"""Asks the GPU driver, where there is one, what it drives."""

from __future__ import annotations

import ctypes
from functools import cache

_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_MINOR = 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR


@cache
def host_targets() -> tuple[str, ...]:
    """Return the architecture of this host's first GPU, such as ``SM90``; empty without one.

    The first, because that is the one that the libraries compile for by default.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    device = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return ()
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return ()
        numbers.append(number.value)
    return (f"SM{numbers[0]}{numbers[1]}",)
