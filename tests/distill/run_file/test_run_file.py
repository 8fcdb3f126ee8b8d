"""The run file: the first user's own, unchanged; merging; every mistake with its line and column."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.places import ROOT

from hessrank.distill.run_file import RunFile, RunKeys, Settings, read_run
from hessrank.errors import HessrankError, OptionError
from hessrank.quant.policy import Policy
from hessrank.quant.policy.vocabulary import holder_keys

FIRST_USER = ROOT / "tests" / "quant" / "policy" / "first_user_run.yaml"
GIVEN_BY_FIRST_USER = set(
    "quant test onnx quant_teacher gpu_id batch_size debug pdb_debug load_model load_quant_model load_teacher_model "
    "config_file_path extra_quantizer_dict output_layer_list distill_config distill_coeff".split()
)


def read(folder: Path, text: str) -> RunFile:
    (folder / "run.yaml").write_text(text)
    return read_run(folder / "run.yaml")


@pytest.fixture
def first_user(tmp_path: Path) -> Path:
    shutil.copy(FIRST_USER, tmp_path / "run.yaml")
    (tmp_path / "configfile").mkdir()
    (tmp_path / "configfile" / "aba_config.yaml").write_text("extra_qconfig_dict: {a_qscheme: {bit: 4}}\n")
    return tmp_path / "run.yaml"


def test_the_first_users_file_reads_unchanged(first_user: Path) -> None:
    run = read_run(first_user)
    keys = run.keys
    assert (keys.quant, keys.test, keys.onnx, keys.quant_teacher) == (True, False, False, True)
    assert (keys.gpu_id, keys.batch_size, keys.debug, keys.pdb_debug) == ((3,), 6, False, False)
    assert keys.load_model == keys.load_teacher_model == "./onnx/SID_weights_690000.pth"
    assert keys.load_quant_model is None
    assert run.given == GIVEN_BY_FIRST_USER - {"load_quant_model"}
    assert run.policy.distill_config == ("DBLE.dual_conv9.lrelu_dup1", "DBF.DBF_conv9.lrelu_dup1")
    assert run.policy.distill_coeff == (0.7, 0.7)
    assert str(run.policy.input_scheme) == "10 per_tensor_affine"
    assert len(run.policy.layers) == 18


def test_the_copy_in_the_tests_is_the_first_users_file() -> None:
    original = ROOT.parent / "shared" / "data" / "seed_run.yaml"
    if not original.exists():
        pytest.skip("the first user's file is not here")
    assert FIRST_USER.read_bytes() == original.read_bytes()


def test_paths_are_relative_to_the_file(first_user: Path) -> None:
    run = read_run(first_user)
    assert run.beside(run.keys.load_model) == first_user.parent / "onnx" / "SID_weights_690000.pth"
    assert run.beside(None) is None
    assert run.out == first_user.parent / "runs" / "run"


def test_the_second_file_fills_what_the_first_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "extra_qconfig_dict: {w_qscheme: {bit: 4}}\ndistill_config: [theirs]\ndistill_coeff: [0.1]\n"
    )
    run = read(tmp_path, "config_file_path: other.yaml\ndistill_config: [ours]\ndistill_coeff: [0.7]\n")
    assert run.policy.extra_qconfig_dict.w_qscheme.bit == 4
    assert (run.policy.distill_config, run.policy.distill_coeff) == (("ours",), (0.7,))


def test_mqbenchs_example_configurations_are_understood(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "extra_prepare_dict:\n  extra_qconfig_dict:\n    w_fakequantize: LearnableFakeQuantize\n"
        "quantize: {quantize_type: naive_ptq, backend: academic}\n"
    )
    assert read(tmp_path, "config_file_path: other.yaml").policy.weight_method == "lsq"


def test_mistakes_in_the_second_file_are_placed_there(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("extra_prepare_dict:\n  extra_qconfig_dict:\n    w_qscheme: {bit: 99}\n")
    with pytest.raises(HessrankError, match=r"other\.yaml:3:22: bit: 99 bits"):
        read(tmp_path, "config_file_path: other.yaml")


def test_what_does_not_fit_the_network_is_placed_in_the_file_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "# one line\nextra_quantizer_dict: {special_layer: {nowhere: {weight: 8}}}\n"
    )
    run = read(tmp_path, "config_file_path: other.yaml\ndistill_config: [layer]\ndistill_coeff: [1.0]\n")
    there, here = run.policy.position("nowhere"), run.policy.place("distill_config", 0)
    assert str(run.policy.error("x", there)) == f"{tmp_path / 'other.yaml'}:2:40: x"
    assert str(run.policy.error("x", here)) == f"{tmp_path / 'run.yaml'}:2:18: x"


MISTAKES = {
    "a misspelled key": ("learning_rte: 1e-3", "1:1: no key named 'learning_rte'; nearest is 'learning_rate'"),
    "a misspelled key of a policy": ("distil_config: [a]", "1:1: no key named 'distil_config'; nearest is"),
    "an abbreviation": ("lr: 1e-3", "1:1: no key named 'lr'; nearest is 'learning_rate'"),
    "a fraction of an epoch": ("quant: true\nepochs: 0.5", "2:9: epochs: 0.5 is not a whole number"),
    "no samples": ("batch_size: 0", "1:13: batch_size: 0 is not 1 or more"),
    "a rate of zero": ("learning_rate: 0", "1:16: learning_rate: 0 is not more than 0"),
    "a rate that is text": ("learning_rate: fast", "1:16: learning_rate: 'fast' is not a number"),
    "an unknown optimizer": ("optimizer: adm", "1:12: optimizer: 'adm' is not one of 'adam', 'adamw' or 'sgd'"),
    "an unknown precision": ("precision: 8", "1:12: precision: '8' is not one of '32', 'bf16' or '16'"),
    "yes for true": ("quant: yes", "1:8: quant: 'yes' is not true or false"),
    "lists of unequal length": (
        "distill_config: [a, b]\ndistill_coeff: [0.7]",
        "2:16: distill_coeff holds 1 and distill_config 2",
    ),
    "a negative GPU": ("gpu_id: -1", "1:9: gpu_id: -1 is not zero or more"),
    "a configuration that is not there": (
        "config_file_path: ./no/such.yaml",
        "1:19: config_file_path: there is no file",
    ),
    "the same key twice": ("epochs: 1\nepochs: 2", "2:1: 'epochs' is there twice, first in line 1"),
    "no YAML": ("epochs: [1", "is not YAML"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_with_its_place(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(HessrankError) as caught:
        read(tmp_path, text)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "run.yaml"))
    assert "\n" not in str(caught.value)


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    names = [name for name in RunKeys.model_fields if name != "config_file_path"]
    run = read(tmp_path, "\n".join(f"{name}:" for name in names))
    assert run.keys == RunKeys()
    assert not run.given


def test_one_loss_or_one_for_each_layer(tmp_path: Path) -> None:
    assert read(tmp_path, "distill_loss: cosine").keys.distill_loss == ("cosine",)
    assert read(tmp_path, "distill_loss: [cosine, mse]").keys.distill_loss == ("cosine", "mse")


def test_a_policy_lets_every_key_of_a_run_file_stand() -> None:
    """``hessrank check run.yaml MODEL`` reads the policy in a run file; distill tells quant its keys."""
    assert set(holder_keys()) == set(RunKeys.model_fields)
    assert not set(RunKeys.model_fields) & set(Policy.model_fields)


def test_every_key_has_a_default_and_a_meaning() -> None:
    for name, field in RunKeys.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


def test_settings_of_keyword_arguments() -> None:
    assert Settings.of({"epochs": 3, "learning_rate": 1e-2}).epochs == 3
    with pytest.raises(OptionError, match="no key named 'epoch'; nearest is 'epochs'"):
        Settings.of({"epoch": 3})
    with pytest.raises(OptionError, match="batch_size: 0 is not 1 or more"):
        Settings.of({"batch_size": 0})
