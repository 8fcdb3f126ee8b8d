"""What a policy says about one tensor."""

import pickle

import pytest

from hessrank.quant.policy import LayerBits, Policy, PolicyError
from hessrank.quant.registries import OBSERVERS, QUANTIZERS
from hessrank.quant.scheme import Scheme


def policy_of(**layers: object) -> Policy:
    return Policy.of({"extra_quantizer_dict": {"special_layer": layers}})


def test_an_empty_policy_has_the_defaults() -> None:
    policy = Policy.of({})
    assert str(policy.weight_scheme("any")) == "8 per_channel_affine"
    assert str(policy.activation_scheme("any")) == "8 per_tensor_affine"
    assert (policy.weight_method, policy.weight_observer) == ("fixed", "minmax")
    assert (policy.activation_method, policy.activation_observer) == ("fixed", "minmax")
    assert policy.input_scheme is None
    assert policy.excluded == ()


@pytest.mark.parametrize("text", [10, "10", " 10 ", "+10", "010"])
def test_what_a_width_leaves_out_is_the_defaults(text: object) -> None:
    schemes = {
        "w_qscheme": {"bit": 6, "symmetry": True, "per_channel": False, "pot_scale": True},
        "a_qscheme": {"bit": 5, "symmetry": True},
    }
    layers = {"conv": {"weight": text, "activation": text}}
    policy = Policy.of({"extra_qconfig_dict": schemes, "extra_quantizer_dict": {"special_layer": layers}})
    assert policy.weight_scheme("conv") == Scheme(10, per_channel=False, symmetric=True, pot_scale=True)
    assert policy.activation_scheme("conv") == Scheme(10, symmetric=True)
    assert policy.weight_scheme("other") == Scheme(6, per_channel=False, symmetric=True, pot_scale=True)
    assert policy.activation_scheme("other") == Scheme(5, symmetric=True)


def test_only_named_tensors_are_named() -> None:
    policy = policy_of(input_layer=10, a={"weight": 4}, b={"activation": "6 symmetric"}, c={})
    assert policy.named_weights == {"a": Scheme(4, per_channel=True)}
    assert policy.named_activations == {"input_layer": Scheme(10), "b": Scheme(6, symmetric=True)}
    assert policy.input_scheme == Scheme(10)


def test_one_name_counts_for_all_that_share_a_tensor() -> None:
    policy = policy_of(lin_dup1={"weight": 4, "activation": 5})
    assert policy.weight_scheme("lin", "lin_dup1", "lin_dup2").bits == 4
    assert policy.activation_scheme("lin", "lin_dup1").bits == 5


def test_two_names_of_a_shared_tensor_may_say_the_same() -> None:
    policy = policy_of(a={"weight": "4 per_channel_affine"}, b={"weight": 4})
    assert policy.weight_scheme("a", "b").bits == 4


def test_contradicting_names_of_a_shared_tensor_are_told_with_both_lines(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open("policy.yaml", "w") as file:
        file.write("extra_quantizer_dict:\n  special_layer:\n    a: {weight: 4}\n    b: {weight: 8, activation: 5}\n")
        file.write("    c:\n      activation: 5 symmetric\n")
    policy = Policy.read("policy.yaml")
    weights = (
        "policy.yaml:4:17: 'b' has 8 per_channel_affine, but 'a' in line 3 has 4 per_channel_affine, "
        "and they share one weight: give both the same"
    )
    for order in (("a", "b"), ("b", "a")):
        with pytest.raises(PolicyError) as caught:
            policy.weight_scheme(*order)
        assert str(caught.value) == weights
    with pytest.raises(PolicyError) as caught:
        policy.activation_scheme("b", "c")
    assert str(caught.value) == (
        "policy.yaml:6:19: 'c' has 5 per_tensor_symmetric, but 'b' in line 4 has 5 per_tensor_affine, "
        "and they share one grid: give both the same"
    )


def test_a_contradiction_in_memory_has_no_line() -> None:
    policy = policy_of(a={"weight": 4}, b={"weight": 8})
    with pytest.raises(PolicyError, match=r"^'b' has 8 per_channel_affine, but 'a' has 4 per_channel_affine, and "):
        policy.weight_scheme("a", "b")
    assert policy.position("a") is None


THEIRS = {
    "MinMaxObserver": "minmax",
    "EMAMinMaxObserver": "moving-average",
    "EMAQuantileObserver": "percentile",
    "MSEObserver": "mse",
    "EMAMSEObserver": "mse",
    "LSQObserver": "mean-magnitude",
    "ClipStdObserver": "minmax",
    "FixedFakeQuantize": "fixed",
    "LearnableFakeQuantize": "lsq",
    "DSQFakeQuantize": "dsq",
    "PACTFakeQuantize": "pact",
    "DoReFaFakeQuantize": "dorefa",
}


@pytest.mark.parametrize("tensor", ["w", "a"])
@pytest.mark.parametrize(("theirs", "ours"), (THEIRS | {name: name for name in (*QUANTIZERS, *OBSERVERS)}).items())
def test_names_of_mqbench_are_ours(tensor: str, theirs: str, ours: str) -> None:
    what = "fakequantize" if ours in QUANTIZERS else "observer"
    policy = Policy.of({"extra_qconfig_dict": {f"{tensor}_{what}": theirs}})
    assert getattr(policy.extra_qconfig_dict, f"{tensor}_{what}") == ours


@pytest.mark.parametrize(
    "name",
    ["NNIEFakeQuantize", "TqtFakeQuantize", "AdaRoundFakeQuantize", "QDropFakeQuantize", "PoTModeObserver"],
)
def test_what_only_mqbench_has_is_refused_as_such(name: str) -> None:
    what = "w_fakequantize" if name.endswith("Quantize") else "w_observer"
    with pytest.raises(PolicyError, match=rf"^{what}: only MQBench has '{name}'"):
        Policy.of({"extra_qconfig_dict": {what: name}})


def test_a_plug_in_is_named_and_not_imported() -> None:
    policy = Policy.of({"extra_qconfig_dict": {"w_fakequantize": "no.such.module:Method"}})
    assert policy.weight_method == "no.such.module:Method"


def test_the_example_of_mqbenchs_documents_is_read_but_for_its_channels() -> None:
    scheme = {"bit": 8, "symmetry": False, "per_channel": True, "pot_scale": False}
    told = {
        "w_observer": "MSEObserver",
        "a_observer": "MSEObserver",
        "w_fakequantize": "FixedFakeQuantize",
        "a_fakequantize": "FixedFakeQuantize",
        "w_qscheme": scheme,
        "a_qscheme": scheme | {"per_channel": False},
    }
    policy = Policy.of({"extra_qconfig_dict": told})
    assert (policy.weight_observer, policy.activation_method) == ("mse", "fixed")
    with pytest.raises(PolicyError, match=r"^a_qscheme: no integer kernel has a scale per channel"):
        Policy.of({"extra_qconfig_dict": told | {"a_qscheme": scheme}})


def test_layers_can_be_put_out_without_being_distilled() -> None:
    policy = Policy.of({"output_layer_list": ["a", "b"], "distill_config": ["b"], "distill_coeff": [1]})
    assert policy.distill_coeff == (1.0,)
    assert Policy.of({"output_layer_list": ["a"]}).distill_config == ()


def test_policies_made_of_the_same_values_are_equal_whatever_their_comments() -> None:
    one, other = policy_of(a={"weight": "010"}), policy_of(a=LayerBits(weight="10"))
    assert one == other.with_reasons({"a": "rank 1"}, "header")
    assert one != policy_of(a={"weight": 9})


def test_a_mistake_in_memory_is_one_line_without_a_place() -> None:
    with pytest.raises(PolicyError, match=r"^weight: 17 bits: bit-widths run from 2 to 16$"):
        policy_of(a={"weight": 17})


def test_an_error_survives_pickling() -> None:
    error = PolicyError("wrong", "policy.yaml", 3, 4)
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.line, found.problem) == ("policy.yaml:3:4: wrong", 3, "wrong")
