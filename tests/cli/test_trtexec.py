"""Command lines of trtexec: what is mapped, what is ignored, and what is refused by name."""

from __future__ import annotations

import json
import shlex

import pytest
from tests.cli.conftest import Cluster

from seatkeeper.artifacts.errors import OptionInvalid
from seatkeeper.cli.exits import Exit
from seatkeeper.cli.trtexec_words import IGNORED, MAPPED, REFUSED, translate


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--onnx=m.onnx", "m.onnx"),
        ("--onnx=m.onnx --saveEngine=m.plan", "m.onnx --output m.plan"),
        ("--onnx=m.onnx --output m.plan", "m.onnx --output m.plan"),
        (
            "--onnx=m.onnx --workspace=64 --memPoolSize=workspace:64",
            "m.onnx --workspace 67108864",
        ),
        ("--fp16 --onnx=m.onnx", "m.onnx --precision fp16"),
        ("--onnx=m.onnx --int8", "m.onnx --precision int8"),
        ("--onnx=m.onnx --fp16 --int8", "m.onnx --precision int8+fp16"),
        ("--onnx=m.onnx --best", "m.onnx --precision auto"),
        ("--onnx=m.onnx --best --fp16", "m.onnx --precision auto"),
        ("--onnx=m.onnx --stronglyTyped", "m.onnx"),
        (
            "--onnx=m.onnx --minShapes=x:1x3x8x8 --optShapes=x:4x3x8x8 --maxShapes=x:8x3x8x8",
            "m.onnx --profile x=1x3x8x8:4x3x8x8:8x3x8x8",
        ),
        ("--onnx=m.onnx --shapes=x:4x3,y:2", "m.onnx --profile x=4x3:4x3:4x3,y=2:2:2"),
        (
            "--onnx=m.onnx --optShapes=gpu_0/data_0:4x3",
            "m.onnx --profile gpu_0/data_0=4x3:4x3:4x3",
        ),
        ("--onnx=m.onnx --optShapes='a:b':4x3", "m.onnx --profile a:b=4x3:4x3:4x3"),
        ("--onnx=m.onnx --minShapes=x:1 --maxShapes=x:9", "m.onnx --profile x=1:9:9"),
        ("--onnx=m.onnx --memPoolSize=workspace:1024", f"m.onnx --workspace {1 << 30}"),
        ("--onnx=m.onnx --memPoolSize=workspace:0.5G", f"m.onnx --workspace {1 << 29}"),
        ("--onnx=m.onnx --workspace=4096", f"m.onnx --workspace {4 << 30}"),
        ("--onnx=m.onnx --builderOptimizationLevel=5", "m.onnx --optimisation-level 5"),
        ("--onnx=m.onnx --fp8", "m.onnx --precision fp8"),
        (
            "--onnx=m.onnx --bf16 --accept-unchecked",
            "m.onnx --precision bf16 --accept-unchecked",
        ),
        (
            "--onnx=m.onnx --plugins=a.so --dynamicPlugins=b.so",
            "m.onnx --plugin=a.so --plugin=b.so",
        ),
        ("--onnx=m.onnx --versionCompatible --vc", "m.onnx --version-compatible"),
        ("--onnx=m.onnx --hardwareCompatibilityLevel=none", "m.onnx"),
        (
            "--onnx=m.onnx --hardwareCompatibilityLevel=ampere+",
            "m.onnx --hardware-compatible",
        ),
        ("--onnx=m.onnx --stripWeights --refit", "m.onnx --strip-weights --refit"),
        (
            "--target SM86 --onnx=m.onnx --calibration a.npz --wait 5",
            "m.onnx --target SM86 --calibration a.npz --wait 5",
        ),
    ],
)
def test_what_is_mapped(given: str, meant: str) -> None:
    translation = translate(shlex.split(given))
    assert translation.words == shlex.split(meant)
    assert translation.warnings == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--fp16", "--onnx=FILE is missing"),
        ("--onnx", "--onnx of trtexec needs a value"),
        ("--onnx=m.onnx --onnx=n.onnx", "--onnx of trtexec is there twice"),
        ("--onnx=m.onnx --fp16=1", "--fp16 of trtexec takes no value"),
        ("--onnx=m.onnx --fp16 --precision int8", "--precision is there, and an option"),
        ("--onnx=m.onnx --saveEngine=a --output b", "--output is there, and an option"),
        ("--onnx=m.onnx --saveEngine=a -o b", "--output is there, and an option"),
        ("--onnx=m.onnx --shapes=x:1 --profile=x=1", "--profile is there, and an option"),
        ("--onnx=m.onnx --workspace=512 --memPoolSize=workspace:1024", "name two sizes"),
        ("--onnx=m.onnx --memPoolSize=workspace:1,dlaSRAM:2", "pool 'dlaSRAM' is not set"),
        ("--onnx=m.onnx --output=prob", "the engine's file is --saveEngine"),
        ("--onnx=m.onnx --fp16 --bf16", "choose --int8 --fp16"),
        ("--onnx=m.onnx --fp16 --stronglyTyped", "name no precision"),
        ("--onnx=m.onnx --calib=cache", "--calib of trtexec: a calibration cache"),
        ("--onnx=m.onnx --loadEngine=m.plan", "it runs an engine"),
        ("--onnx=m.onnx --staticPlugins=x.so", "administrator lists; name it with --plugin"),
        ("--onnx=m.onnx --hardwareCompatibilityLevel=pascal+", "is not none or ampere+"),
        ("--onnx=m.onnx --refit=1", "--refit of trtexec takes no value"),
        ("--onnx=m.onnx --leanDLLPath=x", "--version-compatible is for later versions"),
        ("--onnx=m.onnx --optShapes=x", "is not INPUT:SIZES"),
        ("--onnx=m.onnx --minShapes=x:1 --maxShapes=y:1", "name different inputs"),
        ("--onnx=m.onnx --shapes=x:1 --optShapes=x:1", "give --optShapes alone"),
        ("--onnx=m.onnx --memPoolSize=dlaSRAM:1", "pool 'dlaSRAM' is not set here"),
        ("--onnx=m.onnx --memPoolSize=workspace:lots", "'lots' is no size"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: str, said: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        translate(shlex.split(given))
    assert said in caught.value.message


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_no_refused_option_is_left_out_in_silence(option: str) -> None:
    words = (f"--{option}", f"--{option}=x")
    for word in words if option != "output" else words[1:]:  # with a blank it is ours
        with pytest.raises(OptionInvalid, match=f"--{option} of trtexec: "):
            translate(["--onnx=m.onnx", word])


@pytest.mark.parametrize("option", sorted(IGNORED))
def test_an_ignored_option_is_named_in_a_warning(option: str) -> None:
    for word in (f"--{option}", f"--{option}=x"):
        translation = translate(["--onnx=m.onnx", word])
        assert translation.words == ["m.onnx"]
        (warning,) = translation.warnings
        assert warning.startswith(f"--{option} is ignored: ")


def test_an_option_is_one_thing_only() -> None:
    kinds = [set(MAPPED), set(IGNORED), set(REFUSED)]
    assert sum(map(len, kinds)) == len(set().union(*kinds))


def test_a_command_line_ends_as_the_build_does(cluster: Cluster) -> None:
    absent = cluster.here("trtexec", "--onnx=absent.onnx", "--fp16", "--target", "SM86")
    assert "absent.onnx" in absent.refused(Exit.NOT_FOUND)
    refused = cluster.here("trtexec", "--onnx=m.onnx", "--calib=c", "--target", "SM86")
    assert "--calibration FILE.npz" in refused.refused(Exit.USAGE)
    events = cluster.here(
        "trtexec", "--onnx=absent.onnx", "--verbose", "--target", "SM86", "--json"
    )
    ignored, failed = map(json.loads, events.check(Exit.NOT_FOUND).err.splitlines())
    assert (ignored["event"], failed["event"]) == ("ignored", "failed")
    assert "SM86" in cluster.here("trtexec", f"--onnx={__file__}").refused(Exit.USAGE)
    assert cluster.here("trtexec", "--help").check().out.startswith("Usage: seatkeeper trtexec")
