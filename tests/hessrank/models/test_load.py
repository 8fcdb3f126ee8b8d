"""Files that hold a network or its weights, read back."""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessrank.errors import HessrankError
from hessrank.models import load_model


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net()


@pytest.fixture
def save(tmp_path: Path):
    def save(held: object, name: str = "model.pth", **kwargs) -> Path:
        torch.save(held, tmp_path / name, **kwargs)
        return tmp_path / name

    return save


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def fails(path: Path, **kwargs) -> str:
    with pytest.raises(HessrankError) as caught:
        load_model(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestWeights:
    def test_bare_state_dict(self, net, save):
        loaded = load_model(save(net.state_dict()), arch=Net)
        assert same_weights(loaded.model, net)
        assert loaded.format == "state dict"
        assert loaded.notes == ()
        assert not loaded.model.training
        assert loaded.input_shape is None

    def test_legacy_format_of_torch_save(self, net, save):
        path = save(net.state_dict(), _use_new_zipfile_serialization=False)
        assert same_weights(load_model(path, arch=Net).model, net)

    @pytest.mark.parametrize("key", ["model", "state_dict", "net", "model_state_dict", "ema", "anything"])
    def test_entry_of_a_dict(self, net, save, key):
        loaded = load_model(save({"epoch": 3, key: net.state_dict(), "best": torch.tensor(0.5)}), arch=Net)
        assert same_weights(loaded.model, net)
        assert loaded.notes == (f"took the entry {key!r}",)

    def test_entry_two_levels_down(self, net, save):
        loaded = load_model(save({"ema": {"module": net.state_dict(), "decay": 0.9}}), arch=Net)
        assert loaded.notes == ("took the entry 'ema.module'",)

    def test_model_goes_before_ema_and_the_note_says_so(self, net, save):
        loaded = load_model(save({"ema": Net().state_dict(), "model": net.state_dict()}), arch=Net)
        assert same_weights(loaded.model, net)
        assert loaded.notes == ("took the entry 'model' (the file also holds 'ema'; --weights-key chooses)",)

    def test_the_entry_that_fits_is_taken(self, net, save):
        held = {"model": nn.Linear(2, 2).state_dict(), "discriminator": net.state_dict()}
        assert same_weights(load_model(save(held), arch=Net).model, net)

    def test_state_of_an_optimizer_is_no_state_dict(self, net, save):
        optimizer = torch.optim.Adam(net.parameters())
        net(torch.rand(2, 1, 5, 5)).sum().backward()
        optimizer.step()
        loaded = load_model(save({"optimizer": optimizer.state_dict(), "w": net.state_dict()}), arch=Net)
        assert loaded.notes == ("took the entry 'w'",)

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod."])
    def test_prefix_is_removed(self, net, save, prefix):
        state = OrderedDict((prefix + name, value) for name, value in net.state_dict().items())
        loaded = load_model(save(state), arch=Net)
        assert same_weights(loaded.model, net)
        assert all("from 9 keys" in note for note in loaded.notes)
        assert len(loaded.notes) == prefix.count(".")

    def test_prefix_inside_a_name_is_removed(self, net, save):
        state = {k.replace("conv.", "conv._orig_mod."): v for k, v in net.state_dict().items()}
        loaded = load_model(save(state), arch=Net)
        assert loaded.notes == ("removed '_orig_mod.' from 2 keys",)

    def test_prefix_that_belongs_to_the_network_stays(self, save):
        wrapped = nn.ModuleDict({"module": nn.Linear(2, 2)})
        loaded = load_model(save(wrapped.state_dict()), arch=lambda: nn.ModuleDict({"module": nn.Linear(2, 2)}))
        assert loaded.notes == ()

    def test_two_keys_never_become_one(self, save):
        state = {"module.weight": torch.ones(2, 2), "weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
        message = fails(save(state), arch=lambda: nn.Linear(2, 2))
        assert "not in the network: module.weight" in message

    def test_safetensors(self, net, tmp_path):
        save_file(net.state_dict(), tmp_path / "m.safetensors")
        loaded = load_model(tmp_path / "m.safetensors", arch=Net)
        assert same_weights(loaded.model, net)
        assert loaded.format == "safetensors"

    def test_format_is_told_by_content_not_by_name(self, net, tmp_path):
        save_file(net.state_dict(), tmp_path / "m.pth")
        assert load_model(tmp_path / "m.pth", arch=Net).format == "safetensors"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_weights_keep_their_type(self, net, save, dtype):
        state = net.to(dtype).state_dict()
        loaded = load_model(save(state), arch=Net)
        assert same_weights(loaded.model, net)
        assert loaded.model.conv.weight.dtype == dtype
        assert loaded.notes == (f"weights are {str(dtype).removeprefix('torch.')}",)

    def test_tied_weights_stay_tied_and_need_one_name_only(self, save):
        state = Tied().state_dict()
        del state["head.weight"]
        loaded = load_model(save(state), arch=Tied)
        assert loaded.model.head.weight is loaded.model.embed.weight
        assert torch.equal(loaded.model.head.weight, state["embed.weight"])
        assert loaded.notes == ("head.weight is tied to embed.weight",)

    def test_sha256_and_path(self, net, save):
        import hashlib

        path = save(net.state_dict())
        loaded = load_model(path, arch=Net)
        assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert loaded.path == str(path)

    def test_random_state_is_left_alone(self, net, save):
        path = save(net.state_dict())
        before = torch.get_rng_state()
        load_model(path, arch=Net)
        assert torch.equal(torch.get_rng_state(), before)


class TestKeysThatDoNotMatch:
    def test_without_arch_the_error_says_how_and_lists_keys(self, net, save):
        message = fails(save(net.state_dict()))
        assert "--arch pkg.module:factory" in message
        assert "9 keys: conv.weight, conv.bias, norm.weight" in message

    def test_missing_and_unexpected_with_the_nearest(self, net, save):
        state = net.state_dict()
        state["con.weight"] = state.pop("conv.weight")
        message = fails(save(state), arch=Net)
        assert "missing from the file: conv.weight;" in message
        assert "not in the network: con.weight (nearest is 'conv.weight')" in message

    def test_other_shapes(self, net, save):
        message = fails(save(net.state_dict()), arch=Net, arch_args={"width": 5})
        assert "conv.weight is 3×1×3×3 in the file, 5×1×3×3 in the network" in message
        assert "--arch-args" in message

    def test_no_tensor_under_a_name(self, net, save):
        message = fails(save({**net.state_dict(), "head.bias": [1.0, 2.0]}), arch=Net)
        assert "head.bias is of type list in the file, 2 in the network" in message

    def test_integers_are_not_taken_for_weights(self, net, save):
        message = fails(save({**net.state_dict(), "head.bias": torch.ones(2, dtype=torch.int8)}), arch=Net)
        assert "not of a floating type, as the network's are: head.bias is int8" in message

    def test_two_tensors_for_a_tied_one(self, save):
        state = {"embed.weight": torch.zeros(4, 4), "head.weight": torch.ones(4, 4)}
        message = fails(save(state), arch=Tied)
        assert "one tensor in the network, two in the file: embed.weight and head.weight" in message

    def test_weights_without_values(self, net, save):
        state = {name: value.to("meta") for name, value in net.state_dict().items()}
        assert "meta tensor" in fails(save(state), arch=Net)

    def test_many_are_counted(self, save):
        state = {f"layer{i}": torch.zeros(1) for i in range(12)}
        message = fails(save(state), arch=Net)
        assert "layer7, … (12 in all)" in message
        assert "layer8" not in message

    def test_the_entry_is_named(self, save):
        path = save({"model": {"a": torch.zeros(1)}})
        assert f"{path} (model): the weights do not fit" in fails(path, arch=Net)

    def test_dict_without_weights(self, save):
        assert "no state dict in it, but a dict of 'epoch'" in fails(save({"epoch": 1}))

    def test_empty_dict(self, save):
        assert "an empty dict" in fails(save({}))

    def test_tensor_is_data(self, save):
        assert "a tensor; give data as --data" in fails(save(torch.zeros(2)))

    def test_safetensors_without_tensors(self, tmp_path):
        save_file({}, tmp_path / "m.safetensors")
        assert "no tensors" in fails(tmp_path / "m.safetensors", arch=Net)


class TestPickledModules:
    def test_refused_without_trust(self, net, save):
        message = fails(save(net))
        assert "--trust-pickle" in message
        assert "Net" in message

    def test_read_with_trust(self, net, save):
        loaded = load_model(save(net), trust_pickle=True)
        assert loaded.format == "pickled module"
        assert same_weights(loaded.model, net)
        assert loaded.arch is None

    def test_legacy_format(self, net, save):
        path = save(net, _use_new_zipfile_serialization=False)
        assert "--trust-pickle" in fails(path)
        assert same_weights(load_model(path, trust_pickle=True).model, net)

    def test_module_inside_a_dict(self, net, save):
        loaded = load_model(save({"epoch": 1, "model": net}), trust_pickle=True)
        assert loaded.notes == ("took the entry 'model'",)

    def test_module_inside_data_parallel(self, net, save):
        loaded = load_model(save(nn.DataParallel(net)), trust_pickle=True)
        assert isinstance(loaded.model, Net)
        assert loaded.notes == ("took the network out of DataParallel",)

    def test_compiled_module(self, net, save):
        loaded = load_model(save(torch.compile(net)), trust_pickle=True)
        assert isinstance(loaded.model, Net)
        assert loaded.notes == ("took the network out of OptimizedModule",)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_newer_pickle_protocol(self, net, save, zipped):
        path = save(net.state_dict(), pickle_protocol=4, _use_new_zipfile_serialization=zipped)
        message = fails(path, arch=Net)
        assert "newer pickle protocol" in message
        assert "--trust-pickle" in message
        assert same_weights(load_model(path, arch=Net, trust_pickle=True).model, net)

    def test_with_arch_its_weights_go_into_the_architecture(self, net, save):
        loaded = load_model(save(net), arch=Net, trust_pickle=True)
        assert loaded.format == "state dict"
        assert same_weights(loaded.model, net)

    def test_state_dict_beside_an_object_needs_trust(self, net, save):
        path = save({"args": argparse.Namespace(lr=0.1), "state_dict": net.state_dict()})
        assert "argparse.Namespace" in fails(path, arch=Net)
        assert same_weights(load_model(path, arch=Net, trust_pickle=True).model, net)

    def test_code_that_is_not_here(self, tmp_path):
        script = """
            import torch
            class Local(torch.nn.Linear): pass
            torch.save(Local(2, 2), "m.pth")
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
        message = fails(tmp_path / "m.pth", trust_pickle=True)
        assert "needs code that is not here" in message
        assert "'Local'" in message

    def test_code_in_the_current_folder_is_found(self, tmp_path, monkeypatch):
        (tmp_path / "my_local_net.py").write_text("import torch\nclass Local(torch.nn.Linear): pass\n")
        script = "import torch, my_local_net; torch.save(my_local_net.Local(2, 2), 'm.pth')"
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
        monkeypatch.chdir(tmp_path)
        before = list(sys.path)
        assert type(load_model("m.pth", trust_pickle=True).model).__name__ == "Local"
        assert sys.path == before


class TestExportedPrograms:
    @pytest.fixture
    def exported(self, tmp_path):
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.body(x)

        torch.manual_seed(0)
        model, x = Two().eval(), torch.rand(2, 1, 5, 5)
        torch.export.save(torch.export.export(model, (x,)), tmp_path / "m.pt2")
        return tmp_path / "m.pt2", model, x

    def test_refused_without_trust(self, exported):
        message = fails(exported[0])
        assert "--trust-pickle" in message
        assert "torch.export" in message

    def test_read_with_trust_keeps_names_and_values(self, exported):
        path, model, x = exported
        loaded = load_model(path, trust_pickle=True)
        assert loaded.format == "torch.export program"
        assert "body.0" in dict(loaded.model.named_modules())
        assert torch.equal(loaded.model(x), model(x))
        assert torch.equal(loaded.inputs, x)
        assert loaded.input_shape == (1, 5, 5)
        assert not loaded.model.training
        assert "2×1×5×5" in loaded.notes[0]

    def test_another_name_does_no_harm(self, exported):
        path = exported[0].rename(exported[0].with_suffix(".bin"))
        assert load_model(path, trust_pickle=True).format == "torch.export program"

    def test_arch_is_refused(self, exported):
        assert "leave --arch out" in fails(exported[0], arch=Net, trust_pickle=True)

    def test_damaged_program_is_one_line_without_a_log(self, exported, capfd):
        import zipfile

        path = exported[0]
        with zipfile.ZipFile(path) as archive:
            kept = {n: archive.read(n) for n in archive.namelist() if "models/" not in n}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in kept.items():
                archive.writestr(name, content)
        assert "cannot read this program" in fails(path, trust_pickle=True)
        assert capfd.readouterr().err == ""
