"""A training step and a validation step, as Lightning runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, fx
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MeanMetric

from hessrank.data.batch import bind_fields
from hessrank.distill.run_file import Settings
from hessrank.distill.tasks.base import Task
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.teacher.loss_terms import Distillation
from hessrank.distill.training.evaluate import task_loss, update
from hessrank.distill.training.loop.nonfinite import DivergedError, first_nonfinite, nonfinite_weight
from hessrank.distill.training.loop.optimizers import make_optimizer
from hessrank.distill.training.networks import Networks
from hessrank.errors import HessrankError, ModelError
from hessrank.user_code import explain_errors

TASK = "task"
"""Name of the task's own term in the loss."""
_REMEDY = "try a smaller learning_rate, or clip_gradients; the checkpoint of the last epoch is kept"


class Training(LightningModule):
    """The student, its task and its teacher. Its state dict is the student's own."""

    def __init__(
        self, networks: Networks, task: Task, distillation: Distillation | None, settings: Settings, total_steps: int
    ) -> None:
        """Put a training together; ``total_steps`` is what a schedule spans."""
        super().__init__()
        self.student, self.distillation = networks.student, distillation
        self._networks, self._task, self._settings, self._total_steps = networks, task, settings, total_steps
        hints = [hint.layer for hint in distillation.hints] if distillation else []
        self._view = _tap_student(networks, hints)
        self._means: dict[str, MeanMetric] = {}
        self._metrics = dict(task.metrics())
        self.found: dict[str, float] = {}
        self.begun = False

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the student's state dict, without teacher, metrics and projections."""
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
            if isinstance(module, _BatchNorm):
                weights = list(module.parameters())
                frozen = bool(weights) and not any(weight.requires_grad for weight in weights)
                module.train(not (self._settings.freeze_bn or frozen))

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        return make_optimizer(self.student, self.distillation, self._settings, self._total_steps)

    def training_step(self, fields: Any, index: int) -> dict[str, Tensor]:
        """Return the loss, and its terms detached."""
        batch = bind_fields(fields, self._networks.signature, needs_target=True)
        with explain_errors("the network", ModelError):
            if self._view is None:
                output, features = self.student(*batch.args, **batch.kwargs), {}
            else:
                output, features = self._view(*batch.args, **batch.kwargs)
        terms = {TASK: self._settings.task_coeff * task_loss(self._task, output, batch.target)}
        if self.distillation is not None and self._networks.teacher is not None:
            _, wanted = self._networks.teacher(batch)
            steps = self.trainer.num_training_batches
            terms |= self.distillation(features, wanted, self.current_epoch + (index / steps if steps else 0.0))
        loss = torch.stack(list(terms.values())).sum()
        if not bool(torch.isfinite(loss)):
            where = first_nonfinite(self.student, self._networks.nodes, batch)
            raise self._diverged(f"the loss is {loss.item()}: {where}")
        for name, term in {"loss": loss, **terms}.items():
            if name not in self._means:
                self._means[name] = MeanMetric().to(self.device)
            self._means[name].update(term.detach())
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
        weight = nonfinite_weight(self.student)
        if weight is not None:
            raise self._diverged(f"the weight {weight!r} is not finite")
        self.log_dict(self.found, logger=False)

    def train_means(self) -> dict[str, float]:
        """Return the epoch's means of the loss and of its terms, and start anew."""
        found = {f"train/{name}": float(mean.compute()) for name, mean in self._means.items()}
        self._means = {}
        return found

    def _diverged(self, problem: str) -> DivergedError:
        return DivergedError(f"epoch {self.current_epoch}, step {self.global_step}: {problem}; {_REMEDY}")


def _tap_student(networks: Networks, layers: list[str]) -> fx.GraphModule | None:
    """Return the student with taps at ``layers``; None where there are none."""
    if not layers:
        return None
    if not isinstance(networks.student, fx.GraphModule):
        raise HessrankError(f"a {type(networks.student).__name__} is no torch.fx graph: its layers cannot be tapped")
    return tapped(networks.student, networks.nodes, layers)
