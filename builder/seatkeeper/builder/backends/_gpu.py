"""Memory and clock of the first GPU, from its driver, by ctypes: the libraries' bindings have none.

No machine of ours has such a GPU. What is tried is that each call is refused where there is none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from seatkeeper.artifacts.errors import BuildError


class Gpu:
    """The first GPU, in its primary context. All that it holds ends with the process."""

    def __init__(self, refusal: Callable[[str], BuildError]) -> None:
        """``refusal`` makes the error that is raised when the driver refuses a call."""
        self._refusal = refusal
        self._driver = ctypes.CDLL("libcuda.so.1")
        context, self._stream = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self._call("cuCtxSetCurrent", context)

    def allocated(self, size_bytes: int) -> int:
        """Return the address of so many bytes."""
        address, size = ctypes.c_uint64(), ctypes.c_size_t(max(1, size_bytes))
        self._call("cuMemAlloc_v2", ctypes.byref(address), size)
        return address.value

    def zeros(self, size_bytes: int) -> int:
        """Return the address of so many bytes that are 0."""
        address, size = self.allocated(size_bytes), ctypes.c_size_t(max(1, size_bytes))
        self._call("cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(0), size)
        return address

    def write(self, address: int, source: int, size_bytes: int) -> None:
        """Copy so many bytes from an address of the host."""
        host, size = ctypes.c_size_t(source), ctypes.c_size_t(size_bytes)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), host, size)

    def read(self, address: int, into: int, size_bytes: int) -> None:
        """Copy so many bytes to an address of the host."""
        host, size = ctypes.c_size_t(into), ctypes.c_size_t(size_bytes)
        self._call("cuMemcpyDtoH_v2", host, ctypes.c_uint64(address), size)

    def wait(self) -> None:
        """Wait until all that was begun has ended."""
        self._call("cuCtxSynchronize")

    def free(self, address: int) -> None:
        """Give memory back."""
        self._driver.cuMemFree_v2(ctypes.c_uint64(address))

    def milliseconds(self, run: Callable[[int], None], runs: int, warm_ups: int) -> list[float]:
        """Return how long each run took, by events on the stream that it is given."""
        self._call("cuStreamCreate", ctypes.byref(self._stream), 0)
        begin, end = ctypes.c_size_t(), ctypes.c_size_t()
        for event in (begin, end):
            self._call("cuEventCreate", ctypes.byref(event), 0)
        times: list[float] = []
        for number in range(warm_ups + runs):
            self._call("cuEventRecord", begin, self._stream)
            run(self._stream.value or 0)
            self._call("cuEventRecord", end, self._stream)
            self._call("cuEventSynchronize", end)
            took = ctypes.c_float()
            self._call("cuEventElapsedTime", ctypes.byref(took), begin, end)
            if number >= warm_ups:
                times.append(took.value)
        return times

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise self._refusal(f"the GPU's driver refuses {name}: error {status}")
