"""A policy file is read strictly, and every mistake is one line that says where."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessrank.errors import HessrankError
from hessrank.quant.policy import Policy, PolicyError
from hessrank.quant.policy.read import read_document

HERE = Path(__file__).parent
SPECIAL = "extra_quantizer_dict:\n  special_layer:\n"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a text as policy.yaml in the current folder and read it."""
    monkeypatch.chdir(tmp_path)

    def write_and_read(text: str | bytes) -> Policy:
        Path("policy.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return Policy.read("policy.yaml")

    return write_and_read


MISTAKES = {
    "unknown key": ("distil_config: [a]", "1:1: no key named 'distil_config'; nearest is 'distill_config'"),
    "unknown key of a layer": (
        SPECIAL + "    a:\n      wieght: 8",
        "4:7: no key named 'wieght'; nearest is 'weight'",
    ),
    "unknown key of a scheme": (
        "extra_qconfig_dict:\n  w_qscheme: {bits: 8}",
        "2:15: no key named 'bits'; nearest is 'bit'",
    ),
    "MQBench's own key": (
        "extra_qconfig_dict: {w_fakeq_params: {}}",
        "1:22: only MQBench has 'w_fakeq_params': remove it",
    ),
    "MQBench's own method": (
        "extra_qconfig_dict: {w_fakequantize: QDropFakeQuantize}",
        "1:38: w_fakequantize: only MQBench has 'QDropFakeQuantize': "
        "methods here are fixed, lsq, lsq+, dsq, pact, dorefa",
    ),
    "unknown method": (
        "extra_qconfig_dict: {a_fakequantize: lsqq}",
        "1:38: a_fakequantize: no method named 'lsqq'; nearest is 'lsq'; "
        "methods are fixed, lsq, lsq+, dsq, pact, dorefa",
    ),
    "unknown observer": (
        "extra_qconfig_dict:\n  a_observer: MinMaxObserve",
        "2:15: a_observer: no observer named 'MinMaxObserve'; nearest is 'MinMaxObserver'; "
        "observers are minmax, moving-average, percentile, mse, mean-magnitude",
    ),
    "unknown scheme": (
        SPECIAL + "    a: {weight: 8 per_chanel_affine}",
        "3:17: weight: no scheme named 'per_chanel_affine'; nearest is 'per_channel_affine'; "
        "others: per_tensor_affine, per_channel_symmetric, per_tensor_symmetric",
    ),
    "17 bits": (SPECIAL + "    a: {weight: 17}", "3:17: weight: 17 bits: bit-widths run from 2 to 16"),
    "1 bit": (SPECIAL + "    input_layer: 1", "3:18: input_layer: 1 bits: bit-widths run from 2 to 16"),
    "0 bits for all": (
        "extra_qconfig_dict: {a_qscheme: {bit: 0}}",
        "1:39: bit: 0 bits: bit-widths run from 2 to 16",
    ),
    "half a bit": (
        SPECIAL + "    a: {weight: 4.5}",
        "3:17: weight: 4.5 is no bit-width: write bits and, if you like, a grid, as '10 per_channel_affine'",
    ),
    "a list for bits": (
        SPECIAL + "    a: [8]",
        "3:8: a: [8] is no bit-width: write bits and, if you like, a grid, as '10 per_tensor_affine'",
    ),
    "per channel activation": (
        SPECIAL + "    a:\n      activation: 10 per_channel_affine",
        "4:19: activation: '10 per_channel_affine': no integer kernel has a scale per channel of an activation; "
        "write '10 per_tensor_affine'",
    ),
    "per channel activations": (
        "extra_qconfig_dict:\n  a_qscheme: {bit: 8, per_channel: true}",
        "2:36: a_qscheme: no integer kernel has a scale per channel of an activation; write per_channel: false",
    ),
    "a word for a boolean": (
        "extra_qconfig_dict: {w_qscheme: {symmetry: no}}",
        "1:44: symmetry: 'no' is not true or false",
    ),
    "a text for bits": ("extra_qconfig_dict: {w_qscheme: {bit: '8'}}", "1:39: bit: '8' is not a whole number"),
    "a number for a mapping": (
        "extra_qconfig_dict: 8",
        "1:21: extra_qconfig_dict: 8 is not a mapping of keys to values",
    ),
    "a list for layers": (
        "extra_quantizer_dict:\n  special_layer: [a]",
        "2:18: special_layer: ['a'] is not a mapping of names to values",
    ),
    "a name for a list": ("output_layer_list: conv", "1:20: output_layer_list: 'conv' is not a list"),
    "a number for a name": (
        "output_layer_list: [1.10]",
        "1:21: output_layer_list: 1.1 is not a name; if it is one, put quotes around it: '1.1'",
    ),
    "a text for a coefficient": ("distill_coeff: [much]", "1:17: distill_coeff: 'much' is not a number"),
    "an infinite coefficient": ("distill_coeff: [.inf]", "1:17: distill_coeff: inf is not a finite number"),
    "a negative coefficient": ("distill_coeff: [-0.5]", "1:17: distill_coeff: -0.5 is not zero or more"),
    "unequal lists": (
        "distill_config: [a, b]\ndistill_coeff: [0.7]",
        "2:16: distill_coeff holds 1 and distill_config 2: give each layer one",
    ),
    "no coefficients": (
        "distill_config: [a]",
        "1:17: distill_coeff holds 0 and distill_config 1: give each layer one",
    ),
    "distilled twice": (
        "distill_config: [a, b, a]\ndistill_coeff: [1, 1, 1]",
        "1:24: 'a' is to be distilled twice: remove one",
    ),
    "distilled but not put out": (
        "output_layer_list: [a]\ndistill_config: [a, b]\ndistill_coeff: [1, 1]",
        "2:21: 'b' is to be distilled but is not in output_layer_list: add it there",
    ),
    "the same layer twice": (
        SPECIAL + "    a: {weight: 8}\n    a: {weight: 4}",
        "4:5: 'a' is there twice, first in line 3: remove one",
    ),
    "the first of two mistakes in the file's order": (
        "distill_coeff: [x]\nextra_qconfig_dict: 8",
        "1:17: distill_coeff: 'x' is not a number",
    ),
    "code": (
        "extra_quantizer_dict: !!python/object/apply:os.system ['true']",
        "1:23: the tag '!!python/object/apply:os.system' is refused: a policy holds names and numbers",
    ),
    "code as a key": (
        "!!python/name:os.system x: 1",
        "1:1: the tag '!!python/name:os.system' is refused: keys are names",
    ),
    "an own tag": ("distill_coeff: !mine [1]", "1:16: the tag '!mine' is refused: a policy holds names and numbers"),
    "a wrong tag": ("distill_coeff: [!!int ten]", "1:17: 'ten' is no int"),
    "a number without end": (
        "extra_qconfig_dict: {w_qscheme: {bit: " + "9" * 5000 + "}}",
        f"1:39: {'9' * 40 + '…'!r} is no int",
    ),
    "a merge key": ("extra_qconfig_dict: {<<: {a: 1}}", "1:22: merge key '<<' is refused: keys are names"),
    "a list as a key": ("? [a]\n: 1", "1:3: a mapping or list is refused: keys are names"),
    "no key": (": 1", "1:1: an empty value is refused: keys are names"),
    "half a character": ('output_layer_list: ["\\ud800"]', "1:21: '\\ud800' holds half a character"),
    "an alias of itself": (
        "extra_quantizer_dict: &a {special_layer: *a}",
        "1:23: is nested too deeply, or an alias refers to itself",
    ),
    "an unknown alias": ("distill_coeff: *a", "1:16: is not YAML: found undefined alias 'a'"),
    "an open bracket": (
        "distill_coeff: [1,",
        "1:19: is not YAML: expected the node content, but found '<stream end>'",
    ),
    "a tab": ("a:\n\tb: 1", "2:1: is not YAML: found character '\\t' that cannot start any token"),
    "a control character": ("a:\n  b\x07", "2:4: is not YAML: holds the control character '\\x07'"),
    "two documents": ("{}\n---\n{}", "2:1: is not YAML: but found another document"),
    "a list": ("- 1", "1:1: is no policy: keys and values are wanted, as 'distill_coeff: [0.7]'"),
    "a text": ("hello", "1:1: is no policy: keys and values are wanted, as 'distill_coeff: [0.7]'"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_its_place(read, text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(text)
    assert str(caught.value) == f"policy.yaml:{message}"
    line, column, _ = message.split(":", 2)
    assert (caught.value.line, caught.value.column) == (int(line), int(column))
    assert isinstance(caught.value, HessrankError)


UNREADABLE = {
    "empty": (b"", "is empty: a policy has keys such as 'extra_quantizer_dict'"),
    "comments only": (b"# nothing\n", "is empty: a policy has keys such as 'extra_quantizer_dict'"),
    "binary": (b"PK\x03\x04\0\0", "is a binary file: a policy is YAML, text in UTF-8"),
    "nested": (b"[" * 5000, "is nested too deeply"),
    "huge": (b"# " + b"x" * (1 << 19), "is larger than 512 KiB, which no policy is"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("raw", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_policy_is_refused(read, raw: bytes, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(raw)
    assert str(caught.value) == f"policy.yaml: {message}"


def test_a_file_in_latin_1_is_refused_at_the_letter(read) -> None:
    with pytest.raises(PolicyError, match=r"^policy\.yaml:2:3: is not UTF-8: save it as UTF-8$"):
        read("# ok\n# é\n".encode("latin-1"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yaml: there is no such file$"):
        Policy.read(tmp_path / "none.yaml")
    with pytest.raises(PolicyError, match=r"this is a folder; give a file in it$"):
        Policy.read(tmp_path)
    with pytest.raises(PolicyError, match="cannot be looked up: embedded null"):
        Policy.read("a\0b")


def test_aliases_of_aliases_are_not_written_out(read) -> None:
    rungs = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rungs += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
    ]
    with pytest.raises(PolicyError, match=r"^policy\.yaml: holds more than 50000 values once aliases are followed$"):
        read("\n".join(rungs))


def test_an_alias_repeats_a_value(read) -> None:
    policy = read(SPECIAL + "    a: &wide {weight: 10}\n    b: *wide")
    assert policy.weight_scheme("a") == policy.weight_scheme("b")
    assert policy.weight_scheme("b").bits == 10


def test_names_are_taken_as_they_are_written(read) -> None:
    """Children of nn.Sequential are called 0, 1, …: no number, no date, no truth value."""
    policy = read(
        SPECIAL + "".join(f"    {name}: {{weight: 10}}\n" for name in ("1.10", "007", "true", "2024-01-01"))
    )
    assert list(policy.layers) == ["1.10", "007", "true", "2024-01-01"]


def test_an_empty_value_is_no_value(read) -> None:
    policy = read(
        "extra_qconfig_dict:\nextra_quantizer_dict:\n  special_layer:\n  exclude_node_name:\ndistill_coeff:"
    )
    assert policy == Policy()


def test_a_byte_order_mark_is_no_letter(read) -> None:
    assert read(b"\xef\xbb\xbfoutput_layer_list: [a]").output_layer_list == ("a",)


def test_keys_beside_the_policy_are_read_only_when_they_are_expected(read, tmp_path) -> None:
    text = "rounds: 3\ndistill_config: [a]\ndistill_coeff: [0.7]"
    with pytest.raises(PolicyError, match=r"^policy\.yaml:1:1: no key named 'rounds'"):
        read(text)
    assert Policy.read("policy.yaml", beside=["rounds"]).distill_coeff == (0.7,)
    document = read_document("policy.yaml")
    assert document.data["rounds"] == 3
    assert Policy.part_of(document, beside=["rounds"]).place("distill_config", 0) == (2, 18)
    with pytest.raises(PolicyError, match="no key named 'rounds'; nearest is 'roundsd'"):
        Policy.part_of(document, beside=["roundsd"])


def test_the_first_users_file_reads_unchanged() -> None:
    path = HERE / "first_user_run.yaml"
    policy = Policy.read(path)
    assert len(policy.layers) == 18
    assert str(policy.input_scheme) == "10 per_tensor_affine"
    assert str(policy.weight_scheme("DBF.DBF_conv1.Conv1")) == "10 per_channel_affine"
    assert policy.distill_config == ("DBLE.dual_conv9.lrelu_dup1", "DBF.DBF_conv9.lrelu_dup1")
    assert policy.distill_coeff == (0.7, 0.7)
    assert policy.position("DBF.DBF_conv1.Conv1") == (16, 7)
    assert policy.position("DBF.DBF_conv1.Conv1", "activation") == (18, 23)
    text = path.read_text().splitlines()
    for layer in policy.layers:
        line, column = policy.position(layer)
        assert text[line - 1][column - 1 :].startswith(layer)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab:{}[]&*!-? \n'\"#|>%@,0", max_size=60).map(str.encode)))
def test_any_bytes_are_a_policy_or_refused_as_none(tmp_path_factory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(PolicyError):  # anything else fails the test
        Policy.read(path)


def test_a_misspelled_key_of_a_run_file_is_still_an_error(read) -> None:
    with pytest.raises(PolicyError, match="no key named 'gpu'; nearest is 'gpu_id'"):
        read("gpu: 3")
