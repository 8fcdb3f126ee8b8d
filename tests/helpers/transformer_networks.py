"""Tiny transformers with seeded weights, made from configurations alone; tokens; the exact GGN at any call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY, POSITIONS = 23, 16


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.3)  # as made, attention is all but uniform
    return model


def bert(attention: str = "sdpa", kind: type[nn.Module] = BertForSequenceClassification) -> nn.Module:
    return _seeded(
        lambda: kind(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                max_position_embeddings=POSITIONS,
                num_labels=3,
                attn_implementation=attention,
            )
        )
    )


def bert_model(attention: str = "sdpa") -> nn.Module:
    return bert(attention, BertModel)


def vit(attention: str = "sdpa") -> nn.Module:
    return _seeded(
        lambda: ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                image_size=8,
                patch_size=4,
                num_labels=3,
                attn_implementation=attention,
            )
        )
    )


def gpt2(attention: str = "sdpa") -> nn.Module:
    return _seeded(
        lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=16,
                n_layer=1,
                n_head=2,
                n_inner=24,
                n_positions=POSITIONS,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation=attention,
            )
        )
    )


def llama(attention: str = "sdpa") -> nn.Module:
    return _seeded(
        lambda: LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=POSITIONS,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation=attention,
            )
        )
    )


def token_numbers(samples: int = 2, length: int = 4) -> Tensor:
    return torch.randint(VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(1))


def tokens(samples: int = 2, length: int = 4) -> dict[str, Tensor]:
    ids = token_numbers(samples, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pixels(samples: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(samples, 3, 8, 8, generator=generator, dtype=torch.float64)}


MODELS: dict[str, tuple[Callable[..., nn.Module], Callable[..., dict[str, Tensor]]]] = {
    "bert": (bert, tokens),
    "bert_model": (bert_model, tokens),
    "vit": (vit, pixels),
    "gpt2": (gpt2, tokens),
    "llama": (llama, tokens),
}


class Perturbed(TorchFunctionMode):
    """Adds something to what one call of one function returns: the so-and-so-many-th call of the whole forward."""

    def __init__(self, name: str, number: int, delta: Tensor | None) -> None:
        super().__init__()
        self.name, self.number, self.delta = name, number, delta
        self.value: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        floating = isinstance(value, Tensor) and value.is_floating_point()
        if getattr(func, "__name__", "") != self.name or not floating:
            return value
        self.number -= 1
        if self.number != -1:
            return value
        self.value = value
        return value if self.delta is None else value + self.delta


def exact_trace(
    model: nn.Module,
    sample: Mapping[str, Tensor],
    outputs: Callable[[Any], Tensor],
    curvature: Callable[[Tensor], Tensor],
    where: str | tuple[str, int],
) -> float:
    """Return tr JᵀBJ of one sample by torch.func, with none of hessrank's own machinery.

    Args:
        model: the network, float64.
        sample: a batch of one.
        outputs: takes the output's tensor z from what the network returns.
        curvature: B at z, as a matrix over the flattened z.
        where: path of a module, or a function's name and which of its calls in the whole forward.
    """

    def z_of(delta: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(where, tuple):
            mode = Perturbed(*where, delta)
            with mode:
                z = outputs(model(**sample, **_no_cache(model)))
            assert mode.value is not None
            return z, mode.value
        seen: list[Tensor] = []

        def hook(module: nn.Module, args: Any, value: Tensor) -> Tensor:
            seen.append(value)
            return value if delta is None else value + delta

        handle = model.get_submodule(where).register_forward_hook(hook)
        try:
            return outputs(model(**sample, **_no_cache(model))), seen[0]
        finally:
            handle.remove()

    z, value = z_of(None)
    zero = torch.zeros_like(value)
    jacobian = torch.autograd.functional.jacobian(lambda delta: z_of(delta)[0].flatten(), zero)
    j = jacobian.reshape(z.numel(), -1)
    return float(torch.trace(j.T @ curvature(z.detach()) @ j))


def _no_cache(model: nn.Module) -> dict[str, bool]:
    return {"use_cache": False} if "CausalLM" in type(model).__name__ or "LMHead" in type(model).__name__ else {}


def of_kl(logits: Tensor) -> Tensor:
    """Return the Hessian of KL(p ‖ softmax z) at z, classes last, mean over positions."""
    rows = logits.reshape(-1, logits.shape[-1]).softmax(-1)
    return torch.block_diag(*(torch.diag(p) - torch.outer(p, p) for p in rows)) / len(rows)
