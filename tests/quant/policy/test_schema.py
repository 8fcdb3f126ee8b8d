"""The JSON schema of a policy file, for editors."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from hessrank.quant.policy import Policy, PolicyError, policy_schema


def special(**layers: Any) -> dict[str, Any]:
    return {"extra_quantizer_dict": {"special_layer": layers}}


def scheme(**values: Any) -> dict[str, Any]:
    return {"extra_qconfig_dict": {"w_qscheme": values}}


LEGAL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a width": special(a={"weight": 10}, b={"activation": "16 symmetric"}, input_layer=2),
    "a grid": special(a={"weight": "10 per_channel_symmetric", "activation": "9 per_tensor_affine"}),
    "a scheme": scheme(bit=4, symmetry=True, per_channel=False, pot_scale=False),
    "methods": {"extra_qconfig_dict": {"w_fakequantize": "DSQFakeQuantize", "a_observer": "mse"}},
    "a plug-in": {"extra_qconfig_dict": {"w_fakequantize": "file.py:Method"}},
    "lists": {"output_layer_list": ["a"], "distill_config": ["a"], "distill_coeff": [0.7]},
    "exclusions": {"extra_quantizer_dict": {"exclude_module_name": ["a"], "exclude_node_name": ["cat_3"]}},
}
ILLEGAL: dict[str, dict[str, Any]] = {
    "17 bits": special(a={"weight": 17}),
    "17 bits as text": special(a={"weight": "17 per_channel_affine"}),
    "1 bit as text": special(a={"activation": "1"}),
    "17 bits of the input": special(input_layer="17"),
    "17 bits of all": scheme(bit=17),
    "an unknown grid": special(a={"weight": "8 per_row_affine"}),
    "an activation per channel": special(a={"activation": "8 per_channel_affine"}),
    "activations per channel": {"extra_qconfig_dict": {"a_qscheme": {"per_channel": True}}},
    "an unknown key": {"distil_config": []},
    "an unknown key of a layer": special(a={"wieght": 8}),
    "an unknown method": {"extra_qconfig_dict": {"w_fakequantize": "lsqq"}},
    "a negative coefficient": {"distill_config": ["a"], "distill_coeff": [-1]},
    "a number for a name": {"output_layer_list": [3]},
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = json.loads(json.dumps(policy_schema()))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("data", LEGAL.values(), ids=LEGAL)
def test_schema_and_reading_take_what_is_legal(schema: dict[str, Any], data: dict[str, Any]) -> None:
    jsonschema.validate(data, schema)
    Policy.of(data)


@pytest.mark.parametrize("data", ILLEGAL.values(), ids=ILLEGAL)
def test_schema_and_reading_refuse_what_is_not(schema: dict[str, Any], data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)
    with pytest.raises(PolicyError):
        Policy.of(data)


def test_schema_takes_the_policy_of_the_first_user(schema: dict[str, Any]) -> None:
    data = YAML(typ="safe").load(Path(__file__).with_name("first_user_run.yaml"))
    jsonschema.validate({key: value for key, value in data.items() if key in Policy.model_fields}, schema)


def test_schema_takes_what_a_policy_writes(schema: dict[str, Any]) -> None:
    for data in LEGAL.values():
        jsonschema.validate(YAML(typ="safe").load(str(Policy.of(data))), schema)


def test_schema_explains_its_keys(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == set(Policy.model_fields)
    assert schema["title"] == "hessrank policy"
