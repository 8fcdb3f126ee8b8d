"""A training step and a validation step, as Lightning runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MeanMetric

from hessrank.data.batch import Batch, bind_fields
from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.loss_terms import Distillation
from hessrank.distill.teacher.teacher import Teacher
from hessrank.distill.training.evaluate import task_loss, update
from hessrank.distill.training.loop.nonfinite import DivergedError, first_nonfinite, nonfinite_weight
from hessrank.distill.training.loop.optimizers import make_optimizer
from hessrank.errors import HessrankError, ModelError
from hessrank.user_code import explain_errors

TASK = "task"
"""Name of the task's own term in the loss."""


@dataclass(frozen=True)
class Networks:
    """What takes part in a training.

    Attributes:
        signature: the module whose ``forward`` binds a batch's fields: the user's float network.
        student: what is trained: a quantized network, or a float one.
        nodes: for every layer name, the student's torch.fx node; empty if it is no graph.
        teacher: None without distillation.
    """

    signature: nn.Module
    student: nn.Module
    nodes: Mapping[str, str]
    teacher: Teacher | None = None


class Training(LightningModule):
    """The student, its task and its teacher. Its state dict is the student's own, with the student's own names."""

    def __init__(
        self, networks: Networks, task: Task, distillation: Distillation | None, settings: Settings, total_steps: int
    ) -> None:
        """Put a training together; ``total_steps`` is what a schedule spans."""
        super().__init__()
        self.student, self.distillation = networks.student, distillation
        self._networks, self._task, self._settings, self._total_steps = networks, task, settings, total_steps
        hints = [hint.layer for hint in distillation.hints] if distillation else []
        self._view = _view(networks, hints)
        self._means: dict[str, MeanMetric] = {}
        self._metrics = dict(task.metrics())
        self.found: dict[str, float] = {}
        self.begun = False

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the student's state dict: teacher, metrics and projections are none of a checkpoint's weights."""
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load what ``state_dict`` returned."""
        return self.student.load_state_dict(state_dict, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the projections, which resuming needs, apart from the weights."""
        if self.distillation is not None:
            checkpoint["projections"] = self.distillation.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the projections back.

        Raises:
            ValueError: the optimizer's state is missing, without which Lightning would go on all the same.
        """
        if not checkpoint["optimizer_states"]:
            raise ValueError("it lacks the state of the optimizer")
        if self.distillation is not None:
            self.distillation.load_state_dict(checkpoint["projections"])

    def on_fit_start(self) -> None:
        """Bring what Lightning does not know of to the device."""
        if self._networks.teacher is not None:
            self._networks.teacher.to(self.device)
        self._metrics = {name: metric.to(self.device) for name, metric in self._metrics.items()}

    def on_train_start(self) -> None:
        """Note that all that a checkpoint holds has been taken back."""
        self.begun = True

    def on_train_epoch_start(self) -> None:
        """Put the student into training mode; frozen batch norms stay in evaluation mode."""
        self.student.train()
        for module in self.student.modules():
            if isinstance(module, _BatchNorm) and (self._settings.freeze_bn or _is_frozen(module)):
                module.eval()

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        return make_optimizer(self.student, self.distillation, self._settings, self._total_steps)

    def training_step(self, fields: Any, index: int) -> dict[str, Tensor]:
        """Return the loss, and its terms detached."""
        batch = bind_fields(fields, self._networks.signature, needs_target=True)
        with explain_errors("the network", ModelError):
            output, features = self._run(batch)
        terms = {TASK: self._settings.task_coeff * task_loss(self._task, output, batch.target)}
        if self.distillation is not None and self._networks.teacher is not None:
            _, wanted = self._networks.teacher(batch)
            terms |= self.distillation(features, wanted, self._epochs_done(index))
        loss = torch.stack(list(terms.values())).sum()
        self._require_finite(loss, batch)
        self._count({"loss": loss, **terms})
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def validation_step(self, fields: Any, index: int) -> None:
        """Show one batch to the metrics."""
        batch = bind_fields(fields, self._networks.signature, needs_target=True)
        with explain_errors("the network", ModelError):
            output = self.student(*batch.args, **batch.kwargs)
        update(self._metrics, output, batch.target)

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics of all processes together, and log them as ``val/…``."""
        self.found = {f"val/{name}": float(metric.compute()) for name, metric in self._metrics.items()}
        for metric in self._metrics.values():
            metric.reset()
        self._require_finite_weights()
        self.log_dict(self.found, logger=False)

    def train_means(self) -> dict[str, float]:
        """Return the epoch's mean of the loss and of each term, over all processes, and start anew."""
        found = {f"train/{name}": float(mean.compute()) for name, mean in self._means.items()}
        self._means = {}
        return found

    def _run(self, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        if self._view is None:
            return self.student(*batch.args, **batch.kwargs), {}
        found: tuple[Any, dict[str, Tensor]] = self._view(*batch.args, **batch.kwargs)
        return found

    def _epochs_done(self, index: int) -> float:
        steps = self.trainer.num_training_batches
        return self.current_epoch + (index / steps if steps else 0.0)

    def _count(self, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            if name not in self._means:
                self._means[name] = MeanMetric().to(self.device)
            self._means[name].update(term.detach())

    def _require_finite(self, loss: Tensor, batch: Batch) -> None:
        if bool(torch.isfinite(loss)):
            return
        where = first_nonfinite(self.student, self._networks.nodes, batch)
        raise DivergedError(f"{self._when()}: the loss is {loss.item()}: {where}; {_REMEDY}")

    def _require_finite_weights(self) -> None:
        name = nonfinite_weight(self.student)
        if name is not None:
            raise DivergedError(f"{self._when()}: the weight {name!r} is not finite; {_REMEDY}")

    def _when(self) -> str:
        return f"epoch {self.current_epoch}, step {self.global_step}"


_REMEDY = "try a smaller learning_rate, or clip_gradients; the checkpoint of the last epoch is kept"


def _is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters of which none is trained."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _view(networks: Networks, layers: list[str]) -> fx.GraphModule | None:
    """Return the student with taps at ``layers``; None where there are none."""
    if not layers:
        return None
    if not isinstance(networks.student, fx.GraphModule):
        raise HessrankError(f"a {type(networks.student).__name__} is no torch.fx graph: its layers cannot be tapped")
    return tapped(networks.student, networks.nodes, layers)
