"""Every key of a run file: what its first user starts a training with, and what has come since."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hessrank.distill.run_file.settings import Settings
from hessrank.quant.policy.own_code import code_reference
from hessrank.quant.registries import POLICY_HOLDERS


def _listed(value: object) -> object:
    return [value] if isinstance(value, int | str) and not isinstance(value, bool) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(strict=False)]
Devices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed), Field(strict=False)]
OwnCode = Annotated[str, AfterValidator(code_reference)]
_PLUGINS = "methods and observers of your own that policies in other files may name: `[file.py:Class]`"
OwnCodes = Annotated[tuple[OwnCode, ...], BeforeValidator(_listed), Field(strict=False, description=_PLUGINS)]


@POLICY_HOLDERS.register("run")
class RunKeys(Settings):
    """A run file's keys, less those of a policy. Paths are relative to the file; an empty value is the default."""

    quant: bool = Field(True, description="train the quantized network; False trains in float")
    test: bool = Field(False, description="only judge what is loaded")
    onnx: bool = Field(
        False, description="export ONNX at the end: of the best epoch, or with `test` of what is loaded"
    )
    quant_teacher: bool = Field(False, description="quantize the teacher too, with `teacher_policy` or this policy")
    gpu_id: Devices = Field((), description="the GPU, or a list of them; without a GPU the CPU is taken and named")
    debug: bool = Field(False, description="a trial: two epochs of four batches, in a folder of its own (…-debug)")
    pdb_debug: bool = Field(False, description="open the debugger where an exception was raised")
    load_model: str | None = Field(None, description="weights to start from, of the float network")
    load_quant_model: str | None = Field(
        None,
        description="a trained quantized state to start from; with a checkpoint's own policy, if no policy is given",
    )
    load_teacher_model: str | None = Field(
        None, description="the teacher's weights; if layers are to be distilled and none are given, `load_model`'s"
    )
    config_file_path: str | None = Field(
        None, description="a second YAML with a policy's keys; what this file has too, counts here"
    )
    task: str = Field("lowlight", description="lowlight, classification, or pkg.mod:Class, file.py:Class")
    task_args: dict[str, Any] = Field(default_factory=dict, description="further arguments of the task")
    data: str | None = Field(None, description="what to train on: a folder, or a name that the task knows")
    arch: str | None = Field(None, description="what builds the network, if not the task: pkg.mod:factory")
    arch_args: dict[str, Any] | None = Field(None, description="its arguments; a checkpoint of ours knows its own")
    teacher_arch_args: dict[str, Any] | None = Field(None, description="the teacher's, where they differ")
    teacher_policy: str | None = Field(None, description="policy of a quantized teacher, if not the student's")
    weights_key: str | None = Field(
        None, description="which weights of `load_model` where it holds several: ema, teacher"
    )
    teacher_weights_key: str | None = Field(None, description="the same of `load_teacher_model`")
    ignore_keys: Patterns | None = Field(
        None, description="patterns (`pooler.*`) of keys in these two files that the network may lack"
    )
    plugins: OwnCodes = ()
    trust_pickle: bool = Field(
        False, description="load files that may run code; the command has to say `--trust-pickle` too"
    )
    out: str | None = Field(None, description="folder to write to; runs/ and the run file's name if empty")
