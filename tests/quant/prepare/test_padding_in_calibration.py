"""Padded positions count nowhere: calibration takes its ranges from the same elements as the ranking."""

import pytest
import torch
from torch import Tensor, nn

from hessrank import Policy, prepare, rank

OBSERVERS = ("minmax", "moving-average", "percentile", "mse", "mean-magnitude")
PADDING = 49  # a token of its own, whose embedding is large


class Padded(nn.Module):
    """One attention over padded tokens, and the mean of those that count."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(50, 8), nn.LayerNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x, mask = self.words(input_ids), attention_mask.float()
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5 + (1 - mask)[:, None, :] * -1e4
        x = self.norm(x + scores.softmax(-1) @ self.v(x))
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def made(*, left: bool = False, large: float = 1000.0) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model, ids, mask = Padded().eval(), torch.randint(0, PADDING, (16, 9)), torch.ones(16, 9, dtype=torch.long)
    with torch.no_grad():
        model.words.weight[PADDING] *= large
    for i in range(16):
        count = 5 - i % 5
        places = slice(0, count) if left else slice(9 - count, 9)
        ids[i, places], mask[i, places] = PADDING, 0
    return model, {"input_ids": ids, "attention_mask": mask}


def eight(observer: str = "minmax") -> Policy:
    return Policy.of({"extra_qconfig_dict": {"w_observer": "minmax", "a_observer": observer}})


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_ranges_are_those_of_the_ranking(left: bool, batch_size: int) -> None:
    model, data = made(left=left)
    graph = rank(model, data, loss="self-mse", bits=(8,), max_probes=2).info["graph"]["layers"]
    table = prepare(model, eight(), data, batch_size=batch_size).table()
    scales = {row.layer: row.scale for row in table.itertuples() if row.tensor == "activation"}
    assert {"words", "q", "k", "v", "matmul", "softmax", "norm"} <= set(scales)
    for layer, scale in scales.items():
        low, high = graph[layer]["range"]
        assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-5), layer


@pytest.mark.parametrize("observer", OBSERVERS)
def test_no_observer_sees_what_stands_at_padding(observer: str) -> None:
    """Whatever the padding's embedding is, the same ranges come of it."""
    scales = []
    for large in (1000.0, -3.0):
        model, data = made(large=large)
        table = prepare(model, eight(observer), data).table().query("tensor == 'activation'")
        scales.append(torch.tensor(table["scale"].to_numpy()))
    torch.testing.assert_close(*scales)


def test_the_quantized_network_is_near() -> None:
    model, data = made()
    with torch.no_grad():
        expected, found = model(**data), prepare(model, eight(), data).eval()(**data)
    assert (found - expected).norm() < 0.05 * expected.norm()
