"""Everything that can go wrong between a model and its engine.

BuildError                      never raised itself
├── PlanError                   what was asked for; the caller's to fix
│   ├── ProfileInvalid          a profile contradicts itself or its bounds
│   ├── ProfileMissingInput     an input of free size has no shape in a profile
│   ├── ProfileUnknownInput     a profile names what is not an input of the model
│   ├── ProfileMismatch         a shape's rank or a fixed size differs from the model's
│   ├── TargetUnsupported       this backend does not compile for that GPU architecture
│   ├── PrecisionUnsupported    that architecture, or this version, does not have that precision
│   ├── FeatureUnsupported      no such engines are made there, or a plugin is not listed
│   ├── SamplesInvalid          samples of the inputs are too few, or do not fit the model
│   ├── SamplesDamaged          the file of samples is not what it should be
│   ├── SamplesTooLarge         the file of samples has more bytes than the agent accepts
│   ├── OptionInvalid           workspace, effort or hash out of bounds
│   └── BackendUnknown          no backend has that name
├── ModelError                  the model; its author's to fix
│   ├── ModelTooLarge           more bytes than the agent accepts
│   ├── ModelNotOnnx            not an ONNX file at all, or an empty one
│   ├── ModelTruncated          an ONNX file whose end is missing
│   ├── ModelInvalid            an ONNX file that contradicts itself
│   ├── ModelTooComplex         more nodes, inputs or constants than the agent accepts
│   ├── ModelExternalData       weights outside the file are missing, or where they may not be
│   ├── OpsetUnsupported        newer than what we know how to check
│   ├── InputUnsupported        an input of a type or a use that engines do not have
│   ├── OperatorUnsupported     an operator that the compiler does not have; named
│   ├── ConversionFailed        the model cannot be converted to that precision
│   ├── AccuracyTooLow          the converted model computes something else
│   └── CompilerRefused         the compiler read the model and would not build it
├── ResourceError               the agent's limits; another agent or a later time may do
│   ├── OutOfMemory             the build wanted more memory than it may have
│   ├── DiskFull (retryable)    no room for the engine; nothing is left behind
│   ├── EngineTooLarge          the engine is larger than the agent accepts
│   ├── FilesTooLarge           the build writes more than it may
│   ├── TooManyProcesses        the build starts more processes than it may
│   └── BuildTimedOut           the build took longer than it may
├── ProcessError                the worker process
│   ├── CompilerCrashed         the native library died; the end of its output is attached
│   ├── CompilerStalled (retryable)  the native library fell asleep and did not wake up
│   ├── WorkerKilled (retryable)  someone else killed the worker
│   └── BuildCancelled          killed because no caller waits for it any more
├── BackendMissing              the backend's library is not installed here
├── StoreError                  the store that agents share
│   ├── StoreAddressInvalid     its address is none that can be used
│   ├── StoreUnavailable (retryable)  it does not answer
│   ├── StoreRefused            it does not accept our credentials, or not this call
│   ├── StoreFull (retryable)   it has no room
│   └── EngineNotStored (retryable)  an engine was built, and the store has not got it
├── IsolationUnavailable        builds must be isolated, and this host's kernel does not allow it
└── EngineError                 an engine after it was built
    ├── EngineNotFound          not in this store
    ├── EngineDamaged           its bytes are not what its manifest says
    ├── ManifestUntrusted       its signature does not hold, or is by another key
    ├── BundleInvalid           a file of exported engines is not what it should be
    ├── EngineInaccurate        it computes something else than it should
    ├── RunnerUnavailable       what runs it is not installed, or finds no GPU
    └── AgentKeyUnusable        the key that signs is damaged or open to other users
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

MESSAGE_BYTES_MAX = 1_000
STDERR_TAIL_BYTES_MAX = 3_000
"""Together they fit into the trailing metadata of a gRPC answer: 8 KiB, with everything twice."""


class Fault(StrEnum):
    """Whose fault an error is, so that it reaches the person who can fix it."""

    CALLER = "caller"
    """What was asked for, or the model."""
    AGENT = "agent"
    """The host of the build: its limits, its disk, what is installed on it."""
    COMPILER = "compiler"
    """The vendor's library."""


class BuildError(Exception):
    """Why there is no engine.

    ``code`` is stable and fit for programs; the message is for people and may change. Long
    messages are cut, because compilers quote whole graphs.
    """

    code: ClassVar[str] = ""
    fault: ClassVar[Fault] = Fault.AGENT
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed when it is simply sent again."""
    advice: ClassVar[str] = ""
    """What the reader can do next."""

    def __init__(self, message: str, stderr_tail: str = "") -> None:
        assert self.code, "raise a leaf of the tree"
        self.message = _wire_text(message.encode(errors="replace")[:MESSAGE_BYTES_MAX])
        super().__init__(self.message)
        self.stderr_tail = _wire_text(
            stderr_tail.encode(errors="replace")[-STDERR_TAIL_BYTES_MAX:]
        )
        """The end of what the compiler printed; empty when it had no part in this."""

    def explain(self) -> str:
        """Return the message and the advice, as a person should see them."""
        return f"{self.message.rstrip('.')}. {self.advice}"


class PlanError(BuildError):
    """What was asked for cannot be built."""

    fault = Fault.CALLER


class ProfileInvalid(PlanError):
    """A profile contradicts itself, or a size in it is out of bounds."""

    code = "profile_invalid"
    advice = "Write each input as NAME=MIN:OPT:MAX with 1 <= min <= opt <= max in each place."


class ProfileMissingInput(PlanError):
    """An input whose size is free has no shape in a profile."""

    code = "profile_missing_input"
    advice = "Add the input's smallest, best and largest shape to every profile."


class ProfileUnknownInput(PlanError):
    """A profile names something that is not an input of the model."""

    code = "profile_unknown_input"
    advice = "Use the model's own names for its inputs."


class ProfileMismatch(PlanError):
    """A shape's rank, or one of its fixed sizes, is not the model's."""

    code = "profile_mismatch"
    advice = "Change only the sizes that the model leaves free."


class TargetUnsupported(PlanError):
    """The backend does not compile for a GPU architecture that was asked for."""

    code = "target_unsupported"
    advice = "Choose a target that the message lists, or another backend."


class PrecisionUnsupported(PlanError):
    """A GPU architecture that was asked for, or this version, does not have the precision."""

    code = "precision_unsupported"
    advice = "Choose another precision, such as fp16, or another target."


class FeatureUnsupported(PlanError):
    """The library does not make such an engine on the agent's host, or a plugin is not listed there."""

    code = "feature_unsupported"
    advice = "Leave the option out, or use an agent whose library and host can do it."


class SamplesInvalid(PlanError):
    """Samples of the model's inputs are missing, too few, or of other names, shapes or types."""

    code = "samples_invalid"
    advice = (
        "Give each input of the model as many arrays of its own type and shape as the others."
    )


class SamplesDamaged(PlanError):
    """The file of samples cannot be read, or has what does not belong there."""

    code = "samples_damaged"
    advice = "Write it again with `numpy.savez(FILE, **inputs)`, without objects in it."


class SamplesTooLarge(PlanError):
    """The file of samples has more bytes than the agent accepts."""

    code = "samples_too_large"
    advice = "Give fewer samples: some hundreds are enough to calibrate with."


class OptionInvalid(PlanError):
    """A number or a hash among the options is out of bounds."""

    code = "option_invalid"
    advice = "Leave the option out to get the backend's default."


class BackendUnknown(PlanError):
    """No backend has that name."""

    code = "backend_unknown"
    advice = "Choose `tensorrt_rtx` or `tensorrt`."


class ModelError(BuildError):
    """The model cannot be built by any agent."""

    fault = Fault.CALLER


class ModelTooLarge(ModelError):
    """The model has more bytes than the agent accepts."""

    code = "model_too_large"
    advice = (
        "Store the weights in half precision, or outside the file, or raise the agent's limit."
    )


class ModelNotOnnx(ModelError):
    """The bytes are not an ONNX model."""

    code = "model_not_onnx"
    advice = "Export the model to a single `.onnx` file and send that."


class ModelTruncated(ModelError):
    """The bytes begin like an ONNX model, and end too early."""

    code = "model_truncated"
    advice = "Copy or export the file again, and compare its size with the original."


class ModelInvalid(ModelError):
    """The bytes are an ONNX model that contradicts itself."""

    code = "model_invalid"
    advice = "Run `onnx.checker` on the model, fix what it names, and export it again."


class ModelTooComplex(ModelError):
    """The model has more nodes, inputs or constant bytes than the agent accepts."""

    code = "model_too_complex"
    advice = "Split the model, fold its constants, or raise the agent's limit."


class ModelExternalData(ModelError):
    """Weights outside the model's file are missing, too short, or where they may not be."""

    code = "model_external_data"
    advice = (
        "Keep the files of weights beside the model or in folders below it, not as links, and build "
        "the model by its path."
    )


class OpsetUnsupported(ModelError):
    """The model is written for operators that are newer than the agent knows."""

    code = "opset_unsupported"
    advice = "Export with an older opset, or use a newer agent."


class InputUnsupported(ModelError):
    """An input has a type, or is used in a way, that engines do not have."""

    code = "input_unsupported"
    advice = "Make the input a tensor of numbers, or a constant of the model."


class OperatorUnsupported(ModelError):
    """The compiler does not have one of the model's operators."""

    code = "operator_unsupported"
    advice = "Replace the operator by ones that are supported, or export with another opset."


class ConversionFailed(ModelError):
    """The model cannot be converted to the precision that was asked for."""

    code = "conversion_failed"
    advice = "Choose another precision, or keep the nodes that the message names out of it."


class AccuracyTooLow(ModelError):
    """The converted model's outputs differ from the model's by more than is tolerated."""

    code = "accuracy_too_low"
    advice = (
        "Keep the nodes that the message names in fp32, raise the tolerance, or choose `auto`."
    )


class CompilerRefused(ModelError):
    """The compiler read the model and would not build it; the message is its own."""

    code = "compiler_refused"
    advice = (
        "Read the compiler's message: often the target lacks a type, or workspace is short."
    )


class ResourceError(BuildError):
    """The agent has no more to give to this build."""


class OutOfMemory(ResourceError):
    """The build wanted more memory than it may have."""

    code = "out_of_memory"
    advice = "Use fewer or smaller profiles, or an agent with a higher memory limit."


class DiskFull(ResourceError):
    """There is no room for a file on the agent. Nothing of it was left behind."""

    code = "disk_full"
    retryable = True
    advice = "Free space on the agent's disk, or use another agent."


class EngineTooLarge(ResourceError):
    """The engine is larger than the agent accepts."""

    code = "engine_too_large"
    advice = "Build for fewer targets or profiles, or raise the agent's limit."


class FilesTooLarge(ResourceError):
    """The build writes more than it may, in one file or in all of them."""

    code = "files_too_large"
    advice = "Build for fewer targets or profiles, or raise the agent's limit."


class TooManyProcesses(ResourceError):
    """The build starts more processes than a compiler needs."""

    code = "too_many_processes"
    fault = Fault.COMPILER
    advice = "Send the model to the library's vendor: compilers start threads, not processes."


class BuildTimedOut(ResourceError):
    """The build took longer than it may."""

    code = "build_timeout"
    advice = "Use fewer profiles or a lower effort, or raise the agent's time limit."


class ProcessError(BuildError):
    """The process that built came to an end before the engine did."""


class CompilerCrashed(ProcessError):
    """The native library died of this model. Only this build is lost."""

    code = "compiler_crashed"
    fault = Fault.COMPILER
    advice = "Send the model and the end of the output to the library's vendor; a retry ends the same."


class CompilerStalled(ProcessError):
    """Every thread of the native library waits for another."""

    code = "compiler_stalled"
    fault = Fault.COMPILER
    retryable = True
    advice = "Send the build again; if it stalls again, send the model to the library's vendor."


class WorkerKilled(ProcessError):
    """Someone other than the agent killed the worker."""

    code = "worker_killed"
    retryable = True
    advice = "Send the build again."


class BuildCancelled(ProcessError):
    """The build was stopped because no caller waits for it, or its seat was lost."""

    code = "build_cancelled"
    fault = Fault.CALLER
    advice = "Take a seat and send the build again if the engine is still wanted."


class BackendMissing(BuildError):
    """The backend's library is not installed, or does not load, on this host."""

    code = "backend_missing"
    advice = "Run the command in the message on the agent, or use another agent."


class StoreError(BuildError):
    """The store that agents share has not done what it was asked for."""


class StoreAddressInvalid(StoreError):
    """The address of a store is none that can be used here."""

    code = "store_address_invalid"
    fault = Fault.CALLER
    advice = "Name a folder, s3://BUCKET/PREFIX, or another URL that fsspec knows, without credentials."


class StoreUnavailable(StoreError):
    """The store does not answer, or not as a store does."""

    code = "store_unavailable"
    retryable = True
    advice = "Check that the store runs and can be reached from here, then try again."


class StoreRefused(StoreError):
    """The store does not accept our credentials, or does not let them do this."""

    code = "store_refused"
    advice = "Check the credentials in the environment, and what they may do in that store."


class StoreFull(StoreError):
    """The store has no room. Nothing of what was being stored can be seen in it."""

    code = "store_full"
    retryable = True
    advice = "Free space with `seatkeeper engines gc`, or enlarge the store, then try again."


class EngineNotStored(StoreError):
    """An engine was built and is whole; the store has not got it, so it is not published."""

    code = "engine_not_stored"
    retryable = True
    advice = "Once the store works, send the build again: the engine is published and not built again."


class IsolationUnavailable(BuildError):
    """The agent's settings have builds isolated, and the kernel or the container does not allow it."""

    code = "isolation_unavailable"
    advice = "Allow user namespaces on the host or in the container, or set isolation to auto."


class EngineError(BuildError):
    """A published engine cannot be had."""


class EngineNotFound(EngineError):
    """The store has no engine under that key."""

    code = "engine_not_found"
    advice = "Build it."


class EngineDamaged(EngineError):
    """The engine's bytes are not what its manifest says."""

    code = "engine_damaged"
    advice = "Do not run it. Remove it, and fetch or build it again."


class ManifestUntrusted(EngineError):
    """The manifest's signature does not hold, or was made with another key."""

    code = "manifest_untrusted"
    advice = "Do not run the engine. Fetch it from an agent that the catalogue names."


class BundleInvalid(EngineError):
    """A file of exported engines is damaged, or has what it must not have."""

    code = "bundle_invalid"
    advice = "Nothing of it is imported. Export it again, and copy it whole."


class EngineInaccurate(EngineError):
    """An engine's outputs differ from those expected of it by more than the gate allows."""

    code = "engine_inaccurate"
    advice = "Do not use it. Build it again, at a higher precision or for exactly this GPU."


class RunnerUnavailable(EngineError):
    """What would run an engine is not installed here, or finds no GPU that fits."""

    code = "runner_unavailable"
    advice = "Check the engine on a machine with its GPU and its library."


class AgentKeyUnusable(EngineError):
    """The file of the agent's signing key is damaged, or other users can read it."""

    code = "agent_key_unusable"
    advice = "Restrict the file to its owner, or remove it to have a new key made."


def _wire_text(cut: bytes) -> str:
    """Return the text without the character that was cut in two."""
    return cut.decode(errors="ignore")


def _leaves(cls: type[BuildError]) -> dict[str, type[BuildError]]:
    found = {cls.code: cls} if cls.code else {}
    for child in cls.__subclasses__():
        found |= _leaves(child)
    return found


ERRORS_BY_CODE: dict[str, type[BuildError]] = _leaves(BuildError)
"""Every leaf of the tree, by its code."""


def error_to_fields(error: BuildError) -> dict[str, str]:
    """Return what must cross a process boundary to have the same error on the other side."""
    return {"code": error.code, "message": error.message, "stderr_tail": error.stderr_tail}


def error_from_fields(fields: dict[str, str]) -> BuildError:
    """Return the error that ``error_to_fields`` took apart.

    Raises ``KeyError`` for a code that no leaf has.
    """
    leaf = ERRORS_BY_CODE[fields["code"]]
    return leaf(fields["message"], stderr_tail=fields.get("stderr_tail", ""))
