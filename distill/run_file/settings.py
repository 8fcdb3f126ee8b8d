"""How to train: the numbers that a run file and ``hessrank.train`` share, each with its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hessrank.bounds import MOST_COUNT, MOST_RATE, MOST_SECONDS, MOST_SEED, MOST_WORKERS
from hessrank.errors import OptionError
from hessrank.quant.policy.errors import PolicyError
from hessrank.quant.policy.fields import Keys, Names
from hessrank.quant.policy.positions import FilePositions
from hessrank.quant.policy.validation import validated

Positive = Annotated[float, Field(gt=0, le=MOST_RATE, allow_inf_nan=False)]
Zero = Annotated[float, Field(ge=0, le=MOST_RATE, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MOST_COUNT)]
FromZero = Annotated[int, Field(ge=0, le=MOST_COUNT)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Workers = Annotated[int, Field(ge=1, le=MOST_WORKERS)]
OneOrEach = Annotated[Names, BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Precision = Annotated[Literal["32", "bf16", "16"], BeforeValidator(str)]  # YAML reads 32 as a number


class Settings(Keys):
    """How to train. An empty value is the default."""

    epochs: FromZero = Field(10, description="epochs to train; 0 only judges and calibrates")
    batch_size: Count = Field(8, description="samples a step, over all devices together")
    learning_rate: Positive = Field(1e-4, description="of the network's weights")
    quantizer_learning_rate: Positive = Field(
        1e-2, description="of what `lsq`, `lsq+`, `dsq`, `pact` learn, all of it relative to the calibrated range"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="adam, adamw or sgd (momentum 0.9)")
    weight_decay: Zero = Field(0.0, description="of the network's weights; quantizers have none")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rates over the run: constant, or cosine down to zero"
    )
    clip_gradients: Positive | None = Field(None, description="largest norm of all gradients together")
    freeze_bn: bool = Field(False, description="keep batch norms on the running statistics they were loaded with")
    calibration_samples: Count = Field(32, description="training samples that the ranges are taken from at first")
    seed: Seed = Field(0, description="of order, patches and whatever else is drawn: same seed, same bytes")
    distill_loss: OneOrEach = Field(
        ("mse",),
        description="mse, attention-transfer, cosine, logits-kl, similarity-preserving or file.py:fn; "
        "one for all layers, or a list with one for each",
    )
    distill_temperature: Positive = Field(4.0, description="temperature of logits-kl")
    distill_warmup: Zero = Field(0.0, description="epochs over which the coefficients rise from 0")
    task_coeff: Zero = Field(1.0, description="coefficient of the task's own loss; 0 learns from the teacher alone")
    devices: Workers = Field(1, description="devices, or processes on the CPU; batch_size is shared among them")
    num_nodes: Workers = Field(1, description="machines")
    precision: Precision = Field("32", description="32, bf16 or 16 (mixed)")
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = Field(0, description="processes that load data")
    data_timeout: float = Field(
        120.0, gt=0, le=MOST_SECONDS, description="seconds that the first batch may take; else the run stops"
    )
    detailed_epochs: FromZero = Field(1, description="first epochs that log every step")
    log_every: Count = Field(50, description="steps between logged ones after that")
    pictures: FromZero = Field(2, description="validation samples drawn after every epoch")
    threads: Workers | None = Field(None, description="CPU threads; torch's own choice if empty")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Make settings of keyword arguments.

        Raises:
            OptionError: an unknown name, with the nearest, or a value that does not fit.
        """
        try:
            return validated(cls, given, FilePositions())
        except PolicyError as error:
            raise OptionError(error.problem) from error
