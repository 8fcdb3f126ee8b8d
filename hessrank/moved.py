"""Lets import paths of release 0.5 work for one more release, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_MOVED = """
analysis.batches data.batch
analysis.calls network.walks.call
analysis.checkpoint analysis.sampling.checkpoint
analysis.compare analysis.result.compare
analysis.compare_plot analysis.result.compare_plot
analysis.cross_entropy analysis.losses.cross_entropy
analysis.curvature network.curved_layers
analysis.damage analysis.rounding.quantize
analysis.data data
analysis.feed network.sample_batches
analysis.function_calls network.walks.function_mode
analysis.graph_walk network.walks.fx_walk
analysis.hook_walk network.walks.hook_walk
analysis.increases analysis.rounding.predicted_increase
analysis.job analysis.rank
analysis.layer_families drawing.layer_families
analysis.layers network.layer_names
analysis.loading models
analysis.masks network.masked_scores
analysis.measured_damage analysis.rounding.measured_increase
analysis.measured_increases analysis.rounding.measure_untrusted
analysis.memory out_of_memory
analysis.network network.network
analysis.notes analysis.result.notes
analysis.operands network.constants
analysis.outputs network.outputs
analysis.padding network.padding
analysis.plots analysis.result.plots
analysis.precision network.precision
analysis.probes analysis.estimators.probes
analysis.ranking analysis.result.ranking
analysis.regions analysis.estimators.curvature_propagation.coupled_regions
analysis.report analysis.result.assemble
analysis.rounding_damage analysis.rounding.quadratic_form
analysis.rounding_draws analysis.rounding.quadratic_form_sampler
analysis.rounding_errors analysis.rounding.error_pass
analysis.rounds analysis.sampling.sampler
analysis.shares analysis.losses.position_weights
analysis.stage analysis.sampling.resumable_pass
analysis.sub_networks network.sub_networks
analysis.survey network.layer_survey
analysis.tables analysis.result.tables
analysis.tape analysis.estimators.curvature_propagation.layer_recording
analysis.team distributed
analysis.twice network.double_backward
analysis.untouched network.frozen_model
analysis.weights network.weights
analysis.wiring network.layer_inputs
analysis.data.array_files data.array_files
analysis.data.arrays data.arrays
analysis.data.camera data.raw.camera_files
analysis.data.crop data.crop
analysis.data.exposure data.raw.exposure
analysis.data.fingerprint data.fingerprint
analysis.data.folder data.sample_folder
analysis.data.images data.images
analysis.data.load data.load
analysis.data.mcr data.raw.mcr_frames
analysis.data.noise data.noise
analysis.data.pixels data.pixels
analysis.data.plugin data.loader_plugin
analysis.data.raw data.raw.raw_frames
analysis.data.source data.data_source
analysis.estimators.auto analysis.estimators.choose
analysis.estimators.pilot analysis.estimators.curvature_propagation.pilot
analysis.estimators.rows analysis.estimators.batch_copies
analysis.estimators.sources analysis.estimators.curvature_propagation.cut_hessian
analysis.estimators.spread analysis.estimators.curvature_propagation.probe_variance
analysis.estimators.stretches analysis.estimators.curvature_propagation.segments
analysis.loading.architecture models.architecture
analysis.loading.checkpoint models.model_checkpoint
analysis.loading.entries models.weight_entries
analysis.loading.exported models.exported
analysis.loading.load models.load
analysis.loading.matching models.match_weights
analysis.loading.pickles models.pickles
analysis.loading.prefixes models.name_prefixes
analysis.loading.pretrained models.pretrained
analysis.loading.sniff models.file_format
analysis.loading.weight_sets models.weight_sets
cli.inputs cli.load_inputs
cli.interrupted cli.terminal.interrupted_work
cli.options cli.option_groups
cli.output cli.write_outputs
cli.progress cli.terminal.ranking_progress
cli.training_progress cli.terminal.training_progress
distill.distillation distill.teacher.loss_terms
distill.feature_losses distill.teacher.losses
distill.losses distill.teacher.loss_registry
distill.projections distill.teacher.projections
distill.taps distill.teacher.activations
distill.user_code user_code
distill.run_file.reading distill.run_file.read
distill.tasks.lowlight.mcr_folders distill.tasks.lowlight.data.mcr_folders
distill.tasks.lowlight.mcr_pairs distill.tasks.lowlight.data.mcr_pairs
distill.tasks.lowlight.options distill.tasks.lowlight.data.options
distill.tasks.lowlight.pairs distill.tasks.lowlight.data.pairs
distill.tasks.lowlight.pattern distill.tasks.lowlight.data.pattern
distill.tasks.lowlight.photographs distill.tasks.lowlight.data.photographs
distill.tasks.lowlight.samples distill.tasks.lowlight.data.samples
distill.tasks.lowlight.sid distill.tasks.lowlight.data.sid
distill.tasks.lowlight.sources distill.tasks.lowlight.data.sources
distill.tasks.lowlight.squares distill.tasks.lowlight.data.squares
distill.training.before distill.training.baseline
distill.training.checkpoints distill.training.callbacks.checkpoints
distill.training.curves distill.training.outputs.curves
distill.training.devices distill.training.inputs.devices
distill.training.facts distill.training.outputs.checkpoint_facts
distill.training.folders distill.training.outputs.run_folder
distill.training.identity distill.training.outputs.identity
distill.training.interrupts distill.training.callbacks.interrupts
distill.training.job distill.training.plan
distill.training.judging distill.training.evaluate
distill.training.loaders distill.training.inputs.loaders
distill.training.main_process main_process
distill.training.module distill.training.loop.lightning_module
distill.training.nonfinite distill.training.loop.nonfinite
distill.training.optimizers distill.training.loop.optimizers
distill.training.own_policy distill.training.checkpoint_policy
distill.training.patience distill.training.inputs.timeout
distill.training.pictures distill.training.callbacks.pictures
distill.training.progress distill.training.callbacks.progress
distill.training.records distill.training.callbacks.metrics_files
distill.training.result distill.training.outputs.result
distill.training.start distill.training.from_run_file
distill.training.trained distill.training.outputs.load_trained
distill.training.work distill.training.run
figures drawing.figures
labels drawing.labels
sizes text
wrappers models.wrappers
quant.allocation quant.bit_choice.allocation
quant.alternatives quant.bit_choice.alternatives
quant.backends quant.prepare.mqbench
quant.ends quant.layer_graph.network_ends
quant.graph quant.layer_graph.graph
quant.kernels quant.layer_graph.integer_kernels
quant.kinds quant.layer_graph.layer_kinds
quant.make_policy quant.bit_choice.make_policy
quant.points quant.layer_graph.quantizer_placement
quant.predicted quant.bit_choice.predicted_increase
quant.strategies quant.bit_choice.strategies
quant.summary quant.bit_choice.summary
quant.allocation.allocate quant.bit_choice.allocation.allocate
quant.allocation.core quant.bit_choice.allocation.core
quant.allocation.costs quant.bit_choice.allocation.policy_cost
quant.allocation.latency quant.bit_choice.allocation.latency
quant.allocation.pareto quant.bit_choice.allocation.pareto
quant.allocation.program quant.bit_choice.allocation.program
quant.allocation.silence quant.bit_choice.allocation.silence
quant.backends.mqbench quant.prepare.mqbench.prepare_mqbench
quant.backends.mqbench_execution quant.prepare.mqbench.execution
quant.backends.mqbench_graph quant.prepare.mqbench.graph
quant.backends.mqbench_library quant.prepare.mqbench.library
quant.backends.mqbench_quantizers quant.prepare.mqbench.quantizers
quant.export.diagnosis quant.export.check.diagnosis
quant.export.runtime quant.export.check.runtime
quant.export.saturation quant.export.check.saturation
quant.export.steps quant.export.check.steps
quant.policy.checking quant.policy.check
quant.policy.names quant.policy.vocabulary
quant.policy.places quant.policy.positions
quant.policy.reading quant.policy.read
quant.policy.validating quant.policy.validation
quant.policy.values quant.policy.fields
quant.policy.writing quant.policy.write
quant.strategies.base quant.bit_choice.strategies.problem
quant.strategies.budget quant.bit_choice.strategies.budget
quant.strategies.controls quant.bit_choice.strategies.controls
quant.strategies.distillation quant.bit_choice.strategies.hint_layers
quant.strategies.selection quant.bit_choice.strategies.selection
quant.strategies.sensitive_ends quant.bit_choice.strategies.sensitive_ends
"""

MOVED = {f"hessrank.{old}": f"hessrank.{new}" for old, new in (line.split() for line in _MOVED.split("\n") if line)}
"""The new place of each module by its old one."""


class MovedModules(MetaPathFinder):
    """Finds a module at its old place, and warns."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import what has moved; None for all else."""
        if fullname not in MOVED:
            return None
        warnings.warn(
            f"{fullname} is {MOVED[fullname]} now; the old name goes in release 0.8", DeprecationWarning, stacklevel=2
        )
        return ModuleSpec(fullname, _Alias(MOVED[fullname]))


class _Alias(Loader):
    """Gives the module of another name."""

    def __init__(self, name: str) -> None:
        self._module = importlib.import_module(name)
        self._spec = self._module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # Python has put in the alias's


def install() -> None:
    """Let old places be found; a second call does nothing."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
