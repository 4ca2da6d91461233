"""Shared libraries of x86-64 Linux with functions that return 0, made without a compiler.

The bindings of TensorRT are linked against libraries that only a GPU's host has. With these in their
place the bindings load, and what they offer can be looked at; nothing of it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

_RETURN_0: Final = b"\x31\xc0\xc3\x90"  # xor eax, eax; ret; nop
_PAGE: Final = 0x1000
_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_DYN: Final = struct.Struct("<QQ")
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = (
    *(0, 4, 5, 6, 10, 11, 14),
)
_GLOBAL_FUNCTION: Final = 0x12


def stub_library(soname: str, functions: Sequence[str]) -> bytes:
    """Return a library called ``soname`` with these functions."""
    names = [soname, *functions]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in names]
    count = len(functions) + 1
    # One bucket, and a chain through all symbols: the loader compares names.
    chain = [0, *(index + 1 for index in range(1, count - 1)), 0][:count]
    table = struct.pack(f"<{3 + count}I", 1, count, 1 if functions else 0, *chain)
    symbols_at = _EHDR.size + 4 * _PHDR.size
    strings_at = symbols_at + count * _SYM.size
    hash_at = -(-(strings_at + len(strings)) // 8) * 8
    code_at = -(-(hash_at + len(table)) // 16) * 16
    symbols = _SYM.pack(0, 0, 0, 0, 0, 0) + b"".join(
        _SYM.pack(offset, _GLOBAL_FUNCTION, 0, 1, code_at, len(_RETURN_0))
        for offset in offsets[1:]
    )
    end = code_at + len(_RETURN_0)
    assert end <= _PAGE, "more than a page of names"
    dynamic = b"".join(
        _DYN.pack(tag, value)
        for tag, value in (
            (_DT_SONAME, offsets[0]),
            (_DT_HASH, hash_at),
            (_DT_STRTAB, strings_at),
            (_DT_SYMTAB, symbols_at),
            (_DT_STRSZ, len(strings)),
            (_DT_SYMENT, _SYM.size),
            (_DT_NULL, 0),
        )
    )
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = _EHDR.pack(ident, 3, 62, 1, 0, 64, 0, 0, _EHDR.size, _PHDR.size, 4, 0, 0, 0)
    segments = b"".join(
        (
            _PHDR.pack(_PT_LOAD, 5, 0, 0, 0, end, end, _PAGE),
            _PHDR.pack(_PT_LOAD, 6, _PAGE, _PAGE, _PAGE, len(dynamic), len(dynamic), _PAGE),
            _PHDR.pack(_PT_DYNAMIC, 6, _PAGE, _PAGE, _PAGE, len(dynamic), len(dynamic), 8),
            _PHDR.pack(_PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16),
        )
    )
    content = bytearray(_PAGE)
    for at, part in (
        (0, header + segments),
        (symbols_at, symbols),
        (strings_at, strings),
        (hash_at, table),
        (code_at, _RETURN_0),
    ):
        content[at : at + len(part)] = part
    return bytes(content) + dynamic
