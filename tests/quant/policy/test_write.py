"""What is written reads back as the same policy, and says why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessrank.errors import OutputError
from hessrank.quant.policy import Policy
from hessrank.quant.registries import OBSERVERS, QUANTIZERS

GRIDS = ("", " affine", " symmetric", " per_tensor_affine", " per_tensor_symmetric")
AWKWARD = ["1", "1.10", "on", "null", "~", "true", "a: b", "- a", "# a", "é.层", "'", '"', "a'b", " a ", "", "<<"]
AWKWARD += [
    "2024-01-01",
    "!!int",
    "&a",
    "*a",
    "{a}",
    "[a]",
    "a\nb",
    "\x85",
    "\u2028",
    "?",
    "|",
    "@a",
    "%a",
    "x" * 200,
]

names = st.one_of(
    st.sampled_from(AWKWARD), st.text(max_size=20), st.from_regex(r"[a-z]+(\.[a-z0-9]+)*", fullmatch=True)
)
activation = st.builds(lambda bits, grid: f"{bits}{grid}", st.integers(2, 16), st.sampled_from(GRIDS))
weight = st.one_of(activation, st.builds("{} per_channel_affine".format, st.integers(2, 16)))
entry = st.one_of(activation, st.fixed_dictionaries({}, optional={"weight": weight, "activation": activation}))
scheme = {"bit": st.integers(2, 16), "symmetry": st.booleans(), "pot_scale": st.booleans()}
coefficient = st.floats(0, allow_infinity=False, allow_nan=False)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    distilled = draw(st.lists(names, unique=True, max_size=4))
    return Policy.of(
        {
            "extra_qconfig_dict": {
                "w_qscheme": draw(st.fixed_dictionaries({**scheme, "per_channel": st.booleans()})),
                "a_qscheme": draw(st.fixed_dictionaries(scheme)),
                "w_observer": draw(st.sampled_from([*OBSERVERS])),
                "a_observer": draw(st.sampled_from([*OBSERVERS])),
                "w_fakequantize": draw(st.sampled_from([*QUANTIZERS, "file.py:Method"])),
                "a_fakequantize": draw(st.sampled_from([*QUANTIZERS])),
            },
            "extra_quantizer_dict": {
                "special_layer": draw(st.dictionaries(names, entry, max_size=6)),
                "exclude_module_name": draw(st.lists(names, max_size=3)),
                "exclude_node_name": draw(st.lists(names, max_size=3)),
            },
            "output_layer_list": [*distilled, *draw(st.lists(names, max_size=2))],
            "distill_config": distilled,
            "distill_coeff": [draw(coefficient) for _ in distilled],
        }
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(policies(), st.data())
def test_what_is_written_reads_back_the_same(tmp_path_factory, policy: Policy, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "policy.yaml"
    path.write_text(str(policy), encoding="utf-8")
    assert Policy.read(path, plugins=["file.py:Method"]) == policy
    commented = [*policy.layers, "w_qscheme", "special_layer", "distill_config", "distill_coeff"]
    policy.write(path, {key: data.draw(st.text(max_size=30)) for key in commented})
    found = Policy.read(path, plugins=["file.py:Method"])
    assert found == policy
    assert list(found.layers) == list(policy.layers)


def test_a_policy_reads_as_in_the_documents() -> None:
    policy = Policy.of(
        {
            "extra_quantizer_dict": {
                "special_layer": {
                    "input_layer": 10,
                    "DBF.DBF_conv1.Conv1": {"weight": "10 per_channel_affine", "activation": "10 per_tensor_affine"},
                    "DBLE.lrelu_dup1": {"activation": "10 per_tensor_affine"},
                }
            },
            "output_layer_list": ["DBLE.lrelu_dup1"],
            "distill_config": ["DBLE.lrelu_dup1"],
            "distill_coeff": [0.7],
        }
    )
    reasons = {
        "DBF.DBF_conv1.Conv1": "rank 1/138, trace 4.1e2 ± 3 %:\nfirst convolution of DBF",
        "input_layer": "raw",
    }
    header = "hessrank policy · ranking sha256 0123 · strategy sensitive-ends"
    assert (
        str(policy.with_reasons(reasons, header))
        == """\
# hessrank policy · ranking sha256 0123 · strategy sensitive-ends
extra_qconfig_dict:
  w_qscheme: {bit: 8, symmetry: false, per_channel: true, pot_scale: false}
  a_qscheme: {bit: 8, symmetry: false, per_channel: false, pot_scale: false}
extra_quantizer_dict:
  special_layer:
    input_layer: 10       # raw
    DBF.DBF_conv1.Conv1:  # rank 1/138, trace 4.1e2 ± 3 %: first convolution of DBF
      weight: 10 per_channel_affine
      activation: 10 per_tensor_affine
    DBLE.lrelu_dup1:
      activation: 10 per_tensor_affine
output_layer_list: [DBLE.lrelu_dup1]
distill_config: [DBLE.lrelu_dup1]
distill_coeff: [0.7]"""
    )


def test_methods_are_written_where_they_are_not_the_default() -> None:
    told = {"w_fakequantize": "LearnableFakeQuantize", "a_fakequantize": "fixed", "a_observer": "mse"}
    text = str(Policy.of({"extra_qconfig_dict": told}))
    assert text.splitlines()[-2:] == ["  a_observer: mse", "  w_fakequantize: lsq"]


def test_a_long_list_has_a_line_for_each_name() -> None:
    layers = [f"encoder.layers.{i}.activation" for i in range(12)]
    text = str(Policy.of({"output_layer_list": layers}))
    assert text.endswith("output_layer_list:\n" + "\n".join(f"- {layer}" for layer in layers))
    assert Policy.of({"output_layer_list": layers[:2]}).output_layer_list == tuple(layers[:2])


def test_reasons_go_with_the_policy_into_its_file(tmp_path) -> None:
    policy = Policy.of({"extra_quantizer_dict": {"special_layer": {"a": {"weight": 4}}}})
    policy = policy.with_reasons({"a": "rank 1/9"}, "made by hand")
    policy.write(tmp_path / "one.yaml")
    policy.write(tmp_path / "two.yaml", {"a": "rank 2/9"})
    first, second = ((tmp_path / name).read_text() for name in ("one.yaml", "two.yaml"))
    assert first == f"{policy}\n"
    assert "a:  # rank 1/9\n" in first
    assert second == first.replace("rank 1", "rank 2")


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        Policy().write(tmp_path / "none" / "policy.yaml")
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        Policy().write(tmp_path / "policy.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]
