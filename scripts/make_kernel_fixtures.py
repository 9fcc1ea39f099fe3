"""Writes llmkit-core/tests/fixtures/kernels.safetensors: inputs, outputs and gradients of the fused operations as torch and
transformers compute them. Needs torch, transformers and safetensors; run it from the repository's root.

Gradients are those of sum(output * out_grad), under the name `operation.grad.input`.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

torch.manual_seed(7)
tensors = {}


def record(operation, inputs, constants, function):
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    output = function(**leaves, **constants)
    out_grad = torch.randn_like(output)
    (output * out_grad).sum().backward()
    for name, value in {**inputs, **constants}.items():
        tensors[f"{operation}.{name}"] = value
    tensors[f"{operation}.output"] = output.detach()
    tensors[f"{operation}.out_grad"] = out_grad
    for name, leaf in leaves.items():
        tensors[f"{operation}.grad.{name}"] = leaf.grad


def rms_norm(x, weight):
    norm = LlamaRMSNorm(x.shape[-1], eps=1e-5)
    norm.weight = torch.nn.Parameter(torch.empty(0))
    del norm.weight
    norm.weight = weight
    return norm(x)


def rope(x, cos, sin):
    full = [torch.cat([table, table], -1)[None] for table in (cos, sin)]
    rotated, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), *full)
    return rotated.transpose(1, 2)


def attention(q, k, v, mask):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = mask.bool() if mask is not None else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)


record("rms_norm", {"x": torch.randn(2, 3, 40), "weight": torch.randn(40)}, {}, rms_norm)

angles = torch.randn(5, 4) * 3
record("rope", {"x": torch.randn(2, 5, 3, 8)}, {"cos": angles.cos(), "sin": angles.sin()}, rope)

gates = {"gate": torch.randn(1, 3, 37) * 3, "up": torch.randn(1, 3, 37)}
record("swiglu", gates, {}, lambda gate, up: F.silu(gate) * up)

for name, t, s, causal in [("causal", 5, 7, True), ("full", 5, 7, False), ("decode", 1, 7, True)]:
    seen = torch.ones(t, s).tril(s - t) if causal else torch.ones(t, s)
    inputs = {"q": torch.randn(2, t, 6, 8), "k": torch.randn(2, s, 2, 8), "v": torch.randn(2, s, 2, 8)}
    record(f"attention_{name}", inputs, {"mask": seen}, attention)

targets = torch.tensor([0, 49, 17, 17])
record(
    "cross_entropy",
    {"logits": torch.randn(4, 50) * 4},
    {"targets": targets},
    lambda logits, targets: F.cross_entropy(logits, targets, reduction="none"),
)

record(
    "lora_linear",
    {"x": torch.randn(2, 3, 12), "a": torch.randn(4, 12), "b": torch.randn(7, 4)},
    {"weight": torch.randn(7, 12)},
    lambda x, a, b, weight: x @ weight.T + 1.7 * (x @ a.T) @ b.T,
)

save_file({name: value.contiguous() for name, value in tensors.items()}, "llmkit-core/tests/fixtures/kernels.safetensors")
