"""What a data specification means: random numbers, a user's code, a path, or a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hessrank.data import load_data
from hessrank.errors import DataError, HessrankError, OptionError, UnknownNameError


def refused(spec, error: type[HessrankError] = DataError, **kwargs) -> str:
    with pytest.raises(error) as caught:
        load_data(spec, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRandom:
    def test_eight_standard_normal_samples(self):
        data = load_data("random", input_shape=(3, 50, 50))
        samples = torch.stack([data.dataset[i] for i in range(len(data.dataset))])
        assert samples.shape == (8, 3, 50, 50)
        assert samples.dtype == torch.float32
        assert abs(samples.mean()) < 0.03
        assert abs(samples.std() - 1) < 0.03
        assert data.description["processing"] == ["standard normal"]

    def test_same_seed_same_samples_however_many(self):
        few = load_data("random", input_shape=(4,), num_samples=2, seed=5)
        many = load_data("random", input_shape=(4,), num_samples=6, seed=5)
        assert len(many.dataset) == 6
        assert torch.equal(few.dataset[1], many.dataset[1])
        assert not torch.equal(many.dataset[0], many.dataset[1])

    def test_another_seed_other_samples(self):
        a, b = (load_data("random", input_shape=(4,), seed=seed) for seed in (0, 1))
        assert not torch.equal(a.dataset[0], b.dataset[0])
        assert a.description["sha256"] != b.description["sha256"]

    def test_global_random_state_is_left_alone(self):
        before = torch.get_rng_state()
        load_data("random", input_shape=(4,)).dataset[0]
        assert torch.equal(torch.get_rng_state(), before)

    def test_needs_input_shape(self):
        assert "--input-shape 3,224,224" in refused("random")

    def test_ends(self):
        data = load_data("random", input_shape=(2,), num_samples=3)
        assert len(list(data.dataset)) == 3


CODE = """
import torch
from torch.utils.data import DataLoader, TensorDataset
dataset = TensorDataset(torch.arange(6).float().reshape(3, 2))
tensor = torch.ones(4, 2)
def loader(): return DataLoader(dataset, batch_size=2)
class Own:
    def __len__(self): return 2
    def __getitem__(self, i): return torch.full((2,), float(i))
def fails(): raise OSError("disk\\ngone")
def needs(path): return dataset
def nothing(): return None
number = 3
"""


class TestPlugin:
    @pytest.fixture
    def code(self, tmp_path: Path) -> str:
        (tmp_path / "data_code.py").write_text(CODE)
        return str(tmp_path / "data_code.py")

    def test_dataset(self, code):
        data = load_data(f"{code}:dataset")
        assert isinstance(data.dataset, TensorDataset)
        assert data.description == {
            "kind": "plug-in",
            "path": f"{code}:dataset",
            "sha256": None,
            "type": "torch.utils.data.dataset.TensorDataset",
        }

    def test_function_is_called(self, code):
        assert isinstance(load_data(f"{code}:loader").dataset, DataLoader)

    def test_class_is_called(self, code):
        assert load_data(f"{code}:Own").dataset[1].tolist() == [1.0, 1.0]

    def test_tensor(self, code):
        assert load_data(f"{code}:tensor").dataset.shape == (4, 2)

    def test_module_of_the_current_folder(self, code, monkeypatch):
        monkeypatch.chdir(Path(code).parent)
        assert len(load_data("data_code:dataset").dataset) == 3

    def test_function_that_raises(self, code):
        assert "it raised OSError: disk" in refused(f"{code}:fails")

    def test_function_that_needs_arguments(self, code):
        assert "missing 1 required positional argument: 'path'" in refused(f"{code}:needs")

    @pytest.mark.parametrize(("name", "kind"), [("nothing", "NoneType"), ("number", "int")])
    def test_no_data(self, code, name, kind):
        assert f"it gives a {kind}; give a data set" in refused(f"{code}:{name}")

    def test_unknown_name(self, code):
        assert "nearest is 'loader'" in refused(f"{code}:laoder", UnknownNameError)

    def test_missing_file(self):
        assert "no such file" in refused("nowhere.py:loader", UnknownNameError)

    def test_no_name(self, code):
        assert "pkg.module:name" in refused(f"{code}:", OptionError)

    def test_file_with_a_syntax_error(self, tmp_path):
        (tmp_path / "broken.py").write_text("def f(:\n")
        assert "it raised SyntaxError" in refused(f"{tmp_path / 'broken.py'}:f")


class TestPaths:
    def test_missing_file_names_the_nearest(self, tmp_path):
        (tmp_path / "images.npy").touch()
        message = refused(tmp_path / "imges.npy")
        assert "no such file; nearest is" in message
        assert "images.npy'" in message

    def test_unknown_suffix_lists_the_known_ones(self, tmp_path):
        (tmp_path / "x.csv").touch()
        message = refused(tmp_path / "x.csv")
        assert "data of type '.csv' is not read" in message
        assert ".npy .npz" in message

    def test_no_suffix(self, tmp_path):
        (tmp_path / "x").touch()
        assert "without a suffix" in refused(tmp_path / "x")

    def test_colon_in_the_name_of_a_file(self, tmp_path):
        np.save(tmp_path / "a:b.npy", np.zeros((2, 3)))
        assert load_data(tmp_path / "a:b.npy").description["kind"] == "arrays"

    def test_unreadable_file(self, tmp_path, monkeypatch):
        (tmp_path / "x.npy").touch()

        def denied(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("os.open", denied)
        assert "Permission denied" in refused(tmp_path / "x.npy")

    def test_unlistable_folder(self, tmp_path, monkeypatch):
        def denied(self):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", denied)
        assert "cannot be listed: Permission denied" in refused(tmp_path)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"num_samples": 0}, "num_samples is 0"),
            ({"input_shape": (3, 0)}, "--input-shape 3×0"),
            ({"input_shape": ()}, "--input-shape"),
            ({"gain": 0.0}, "gain is 0.0"),
            ({"gain": float("nan")}, "gain is nan"),
        ],
    )
    def test_out_of_range(self, options, says):
        assert says in refused("random", **{"input_shape": (2,), **options})

    def test_description_is_plain_json(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=np.zeros((2, 3)), b=np.zeros(2))
        for data in (load_data(tmp_path / "x.npz"), load_data("random", input_shape=(2,))):
            assert json.loads(json.dumps(data.description)) == data.description
