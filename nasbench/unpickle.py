"""Reading pickles that others published: plain containers and arrays of numbers, and nothing that runs.

A pickle is a program that may call whatever it can import. Here it can import nothing: a name in it either
stands for something of `ADMITTED`, which only makes numbers, text and containers, or ends the reading.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from nasbench.errors import BadInput


class Refused(pickle.UnpicklingError):
    """A pickle asks for something that no data needs."""


class NumberType:
    """Stands for `numpy.dtype`, whose own state could turn numbers into pointers: numbers, and their byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise Refused(f"the array type {code!r}, which is no number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Array(np.ndarray):
    """An array that takes nothing but numbers from a pickle."""

    def __setstate__(self, state: Any) -> None:
        version, shape, number, fortran, content = state
        super().__setstate__((version, shape, number.dtype, fortran, content))


class ArrayClass:
    """Stands for `numpy.ndarray`, which pickles name and `empty_array` does not need."""


def empty_array(subtype: object, shape: object, code: object) -> Array:
    """Stands for numpy's `_reconstruct`; the state that follows fills the array."""
    return Array((0,), np.uint8)


def number(number_type: NumberType, content: bytes) -> float | int | bool:
    """Stands for numpy's `scalar`; a plain number, of the type of the pickled one."""
    value: float | int | bool = np.frombuffer(content, number_type.dtype, 1)[0].item()
    return value


def latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, the form that bytes have in old pickles."""
    if encoding != "latin1":
        raise Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


#: What a name in a pickle stands for. numpy 2 renamed `numpy.core`; files of either version are read.
ADMITTED: dict[str, Any] = {
    "builtins.set": set,
    "__builtin__.set": set,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": latin1,
    "numpy.dtype": NumberType,
    "numpy.ndarray": ArrayClass,
    "numpy.core.multiarray._reconstruct": empty_array,
    "numpy._core.multiarray._reconstruct": empty_array,
    "numpy.core.multiarray.scalar": number,
    "numpy._core.multiarray.scalar": number,
}


class PlainUnpickler(pickle.Unpickler):
    """`pickle.Unpickler` that finds nothing but `ADMITTED`."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ADMITTED:
            raise Refused(f"{module}.{name}")
        return ADMITTED[f"{module}.{name}"]


def load_plain(file: IO[bytes], path: Path) -> Any:
    """The content of a pickle of containers, numbers, text and arrays; numpy's scalars come out as Python's.

    `path` is named in errors. Raises BadInput if the pickle names anything else, of which nothing is run, or
    is damaged.
    """
    try:
        return PlainUnpickler(file, encoding="latin1").load()
    except Refused as error:
        raise BadInput(
            f"{path} asks for {error}; a file of data needs no such thing, and nothing of it was run."
        ) from None
    except Exception as error:  # a damaged pickle may fail anywhere, but only in the code above
        raise BadInput(f"{path} is damaged ({type(error).__name__}: {error}); download it again.") from None
