"""Checks an engine on samples: ``python -m seatkeeper.builder.running.check``, a process of its own.

Its arguments are the runner, the file that it runs, the samples, the outputs expected of them and the
tolerance. The last line that it writes is JSON: what it found, or the error. A native library that
crashes takes nothing else down.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seatkeeper.artifacts.errors import (
    BuildError,
    EngineInaccurate,
    SamplesDamaged,
    SamplesInvalid,
    error_to_fields,
)
from seatkeeper.artifacts.precision_report import OutputAccuracy, worst
from seatkeeper.builder.conversion.accuracy import Outputs, compare_outputs, nothing_to_compare
from seatkeeper.builder.conversion.samples import read_arrays, read_samples
from seatkeeper.builder.running.runner import EngineRunner, open_runner


def check_engine(
    runner: EngineRunner, inputs: Path, expected: Path, tolerance: float
) -> tuple[OutputAccuracy, ...]:
    """Return how an engine's outputs differ from those expected, if by no more than ``tolerance``.

    Raises ``EngineInaccurate`` if by more, ``SamplesInvalid`` or ``SamplesDamaged``.
    """
    feeds = read_samples(inputs, runner.inputs)
    wanted = _expected(expected, len(feeds))
    computed = [runner.run(sample) for sample in feeds]
    for name, array in wanted[0].items():
        if name not in computed[0]:
            raise SamplesInvalid(f"{name!r} is no output of the engine")
        if computed[0][name].size != array.size:
            raise EngineInaccurate(
                f"output {name!r} has {computed[0][name].size} elements, and {array.size} are expected"
            )
    outputs = compare_outputs(wanted, computed)
    furthest = worst(outputs)
    if not furthest.is_within(tolerance):
        raise EngineInaccurate(
            f"output {furthest.output!r} differs by {furthest.relative_l2:.4%} on {len(feeds)} "
            f"samples, over the gate of {tolerance:.4%}"
        )
    return outputs


def _expected(path: Path, count: int) -> list[Outputs]:
    arrays = read_arrays(path)
    if not arrays:
        raise SamplesDamaged("there are no expected outputs")
    split: dict[str, Sequence[npt.NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) == 0 or len(array) % count:
            raise SamplesInvalid(
                f"expected output {name[:100]!r} has no equal part for each of {count} samples"
            )
        split[name] = np.split(array, count)
    wanted: list[Outputs] = [
        {name: parts[number] for name, parts in split.items()} for number in range(count)
    ]
    if why := nothing_to_compare(wanted):
        raise SamplesInvalid(f"nothing can be compared with what is expected: {why}")
    return wanted


def check_expected(inputs: Path, expected: Path) -> None:
    """Check samples and the outputs expected of them, as far as that goes without the engine.

    Raises ``SamplesInvalid`` or ``SamplesDamaged``.
    """
    given, wanted = read_arrays(inputs), read_arrays(expected)
    for what, arrays in (("samples", given), ("expected outputs", wanted)):
        if not arrays:
            raise SamplesInvalid(f"there are no {what}")
        for name, array in arrays.items():
            if not array.size:
                raise SamplesInvalid(f"{what}: array {name[:100]!r} is empty")
    if why := nothing_to_compare([wanted]):
        raise SamplesInvalid(f"nothing can be compared with what is expected: {why}")


def main(arguments: Sequence[str]) -> int:
    """Run the process. With two arguments it checks samples and expected outputs alone."""
    try:
        if len(arguments) == 2:
            check_expected(*map(Path, arguments))
            print("{}")
            return 0
        runner_name, file, inputs, expected, tolerance = arguments
        runner = open_runner(runner_name, Path(file))
        outputs = check_engine(runner, Path(inputs), Path(expected), float(tolerance))
    except BuildError as error:
        print(json.dumps({"error": error_to_fields(error)}))
        return 1
    said = [dataclasses.asdict(each) for each in outputs]
    print(json.dumps({"runner": runner.name, "outputs": said}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
