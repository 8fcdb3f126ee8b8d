"""Make the JSON schema of a policy.

For editors that complete and check while one types.
"""

from __future__ import annotations

from typing import Any

from hessrank.quant.policy.model import Policy


def policy_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a policy file.

    What needs more than one value (lists of equal length, names that the network has) is left to reading and
    checking. An empty value, which reading takes for a key that is not there, is marked by the schema.
    """
    found = Policy.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "hessrank policy"}
    return head | {key: value for key, value in found.items() if key != "title"}
