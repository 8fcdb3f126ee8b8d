"""What is inside a wrapper is ranked, prepared and trained under its own names; the wrapper stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

import hessrank
from hessrank.data.batch import Batch
from hessrank.models.wrappers import copy_network, take_out, unwrap, without_wrappers, wrappers_of
from hessrank.quant.bit_choice.make_policy import make_policy
from hessrank.quant.prepare import graph_of

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(64, 3)).eval()


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "OptimizedModule": torch.compile,
    "AveragedModel": AveragedModel,
    "CheckpointWrapper": checkpoint_wrapper,
}
NESTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    **WRAPPERS,
    "compiled in parallel": lambda model: nn.DataParallel(torch.compile(model)),
    "average of parallel": lambda model: AveragedModel(nn.DataParallel(model)),
}


def part_wrapped(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """Wrap what lies inside, as ``model.features = DataParallel(model.features)`` does."""
    model = network()
    model[0] = wrap(model[0])
    model[0].eval()
    return model


def state(model: nn.Module) -> list[object]:
    """Return what may not change: which modules hang where, their modes, the values."""
    modules = [(name, id(module), module.training) for name, module in model.named_modules()]
    return [*modules, *((name, value.clone().tolist()) for name, value in model.state_dict().items())]


@pytest.fixture(scope="module")
def ranking() -> hessrank.Ranking:
    return hessrank.rank(network(), X)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", NESTS.values(), ids=NESTS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
def test_what_is_inside_is_ranked_and_prepared(
    wrap: Callable[[nn.Module], nn.Module], whole: bool, ranking: hessrank.Ranking
) -> None:
    model = wrap(network()) if whole else part_wrapped(wrap)
    before = state(model)
    found = hessrank.rank(model, X)
    assert found.to_frame().equals(ranking.to_frame())
    assert {f"took the network out of {name}" for name in wrappers_of(model)} <= set(found.warnings)
    assert wrappers_of(model)
    policy = make_policy(ranking, base_bits=4)
    wanted, got = (hessrank.prepare(one, policy, X) for one in (network(), model))
    assert got.table().equals(wanted.table())
    assert list(got.state_dict()) == list(wanted.state_dict())
    assert state(model) == before


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_all_other_doors(wrap: Callable[[nn.Module], nn.Module], ranking: hessrank.Ranking, tmp_path: Path) -> None:
    model, policy = wrap(network()), make_policy(ranking, base_bits=4)
    verified = [hessrank.verify(one, X, ranking, bits=4).to_frame() for one in (network(), model)]
    assert verified[0].equals(verified[1])
    graphs = [graph_of(one, Batch((X[:1],))) for one in (network(), model, part_wrapped(wrap))]
    assert list(graphs[0].nodes) == list(graphs[1].nodes) == list(graphs[2].nodes)
    hessrank.save_checkpoint(tmp_path / "own.pth", model, arch="net", arch_args={}, input_shape=(3, 6, 6))
    for path, saved in {"own.pth": None, "bare.pth": model.state_dict()}.items():
        if saved is not None:
            torch.save(saved, tmp_path / path)
        loaded = hessrank.load_model(tmp_path / path, arch=lambda: wrap(network()))
        assert list(loaded.model.state_dict()) == list(network().state_dict())
    prepared = wrap(hessrank.prepare(network(), policy, X))
    assert hessrank.export_onnx(prepared, tmp_path / "model.onnx", X).path.exists()
    with pytest.raises(hessrank.HessrankError, match="quantized already"):
        hessrank.prepare(prepared, policy, X)


def test_training_a_wrapped_network(ranking: hessrank.Ranking, tmp_path: Path) -> None:
    policy = make_policy(ranking, base_bits=4)
    data = (X, torch.tensor([0, 1, 2, 0]))
    results = [
        hessrank.train(
            wrap(network()), policy, data, teacher=wrap(network()), epochs=1, batch_size=2,
            out=tmp_path / name, say=lambda _: None,
        )
        for name, wrap in {"bare": lambda one: one, "wrapped": nn.DataParallel}.items()
    ]  # fmt: skip
    bare, wrapped = (result.model.state_dict() for result in results)
    assert list(bare) == list(wrapped)
    weights = [name for name, value in bare.items() if isinstance(value, torch.Tensor)]
    assert weights
    assert all(torch.equal(bare[name], wrapped[name]) for name in weights)


def test_the_state_of_an_average_loads(tmp_path: Path) -> None:
    torch.save(AveragedModel(network()).state_dict(), tmp_path / "average.pth")
    loaded = hessrank.load_model(tmp_path / "average.pth", arch=network)
    assert torch.equal(loaded.model(X), network()(X))
    assert loaded.notes == ("removed 'module.' from 4 keys", "left out AveragedModel's n_averaged")


def test_a_network_compiled_in_place_is_called_as_written() -> None:
    def never(*_: object) -> None:
        raise AssertionError("compiled code was called")

    model = network()
    model._compiled_call_impl = never  # what nn.Module.compile() sets
    model[0]._compiled_call_impl = never
    assert len(hessrank.rank(model, X).to_frame()) == len(hessrank.rank(network(), X).to_frame())
    assert model._compiled_call_impl is never
    assert model[0]._compiled_call_impl is never


def test_parts_are_put_back_after_an_error() -> None:
    model = part_wrapped(nn.DataParallel)

    def look() -> None:
        with without_wrappers(model) as inner:
            assert inner is model
            assert isinstance(inner[0], nn.Sequential)
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert isinstance(model[0], nn.DataParallel)


def test_a_copy_has_no_wrappers_and_shares_nothing() -> None:
    model = nn.DataParallel(part_wrapped(nn.DataParallel))
    copy_of = copy_network(model)
    assert [name for name, _ in copy_of.named_parameters()] == [name for name, _ in network().named_parameters()]
    assert {p.data_ptr() for p in copy_of.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
    assert isinstance(model.module[0], nn.DataParallel)


def test_what_is_no_wrapper_stays() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    own = Own()
    assert unwrap(own) is take_out(own) is own
    assert wrappers_of(own) == ()
    assert copy.deepcopy(own).module is not own.module
