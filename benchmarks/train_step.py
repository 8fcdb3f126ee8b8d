"""What the trainer costs: a step of quantization-aware training with a teacher, against the same step in a bare loop.

Both take the same student, teacher, data and optimizer, one after the other in turns; a step is everything from the
end of one to the end of the next: loading, forward of student and teacher, backward, optimizer, and what the
trainer does beside.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.common import Row, parsed, parser, report
from hessrank.data.batch import bind_fields
from hessrank.distill.run_file import read_run
from hessrank.distill.teacher.activations import tapped
from hessrank.distill.training.baseline import Baseline
from hessrank.distill.training.fit import fit
from hessrank.distill.training.from_run_file import plan_run
from hessrank.distill.training.inputs.devices import Devices
from hessrank.distill.training.inputs.loaders import training_loader
from hessrank.distill.training.plan import TrainingPlan

CHECKPOINT = Path("examples/lowlight/model.pth")
LOWLIGHT = f"""
load_model: {CHECKPOINT.resolve()}
batch_size: 8
pictures: 0
detailed_epochs: 0
calibration_samples: 4
extra_qconfig_dict: {{w_qscheme: {{bit: 4}}, a_qscheme: {{bit: 4}}}}
distill_config: [DBLE.dual_conv9.lrelu_dup1, DBF.DBF_conv9.lrelu_dup1]
distill_coeff: [0.7, 0.7]
"""
DIGITS = """
task: classification
batch_size: 64
pictures: 0
detailed_epochs: 0
calibration_samples: 4
extra_qconfig_dict: {w_qscheme: {bit: 4}, a_qscheme: {bit: 4}}
distill_config: [stem.conv, add]
distill_coeff: [0.7, 0.7]
"""


def make_plan(text: str, steps: int, folder: Path) -> TrainingPlan:
    """Plan one epoch of so many steps."""
    batch = int(text.partition("batch_size: ")[2].partition("\n")[0])
    (folder / "run.yaml").write_text(text + f"epochs: 1\ntask_args: {{samples: {steps * batch}}}\n")
    return plan_run(read_run(folder / "run.yaml"), folder / "run")


def through_the_trainer(text: str, steps: int) -> list[float]:
    """Return the seconds of each step but the first."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        plan = make_plan(text, steps, Path(name))
        plan.folder.mkdir()
        fit(plan, Devices("cpu", 1), Baseline(steps=steps), report=lambda *_: ends.append(time.process_time()))
    return [after - before for before, after in pairwise(ends)]


def in_a_bare_loop(text: str, steps: int) -> list[float]:
    """Return the same of a loop as one would write it."""
    with tempfile.TemporaryDirectory() as name:
        plan = make_plan(text, steps, Path(name))
    student, teacher, distillation = copy.deepcopy(plan.networks.student), plan.networks.teacher, plan.distillation
    assert teacher is not None
    assert distillation is not None
    layers = {hint.layer: hint.coefficient for hint in distillation.hints}
    view = tapped(student, plan.networks.nodes, list(layers))
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    student.train()
    ends = []
    for fields in training_loader(plan.data.training, plan.settings):
        batch = bind_fields(fields, plan.networks.signature, needs_target=True)
        optimizer.zero_grad()
        output, found = view(*batch.args)
        _, wanted = teacher(batch)
        loss = plan.data.task.loss(output, batch.target)
        for layer, coefficient in layers.items():
            loss = loss + coefficient * torch.nn.functional.mse_loss(found[layer], wanted[layer])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ends.append(time.process_time())
    return [after - before for before, after in pairwise(ends)]


def main() -> None:
    """Let both take turns, on the low-light network and on a tiny classifier, and print one table."""
    options = parsed(parser(__doc__))
    turns, steps = (1, 4) if options.quick else (6, 30)
    rows: list[Row] = []
    for name, text in {"low-light, 8×1×64×64": LOWLIGHT, "digits, 64×1×8×8": DIGITS}.items():
        ways: dict[str, Callable[[str, int], list[float]]] = {
            "bare loop": in_a_bare_loop,
            "trainer": through_the_trainer,
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(turns):
            for way, run in ways.items():
                taken[way] += run(text, steps)
        bare, ours = (1e3 * statistics.median(taken[way]) for way in ways)
        rows.append({"step": name, "bare loop ms": bare, "trainer ms": ours, "trainer / bare": ours / bare})
    report("A step of quantization-aware training with a teacher", rows, options.out)


if __name__ == "__main__":
    main()
