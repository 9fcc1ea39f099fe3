"""What the fixture scripts share: tiny Llama-shaped models with random weights, and greedy decoding with a known margin.

The weights are random but shaped so that a mistake shows: logits have a standard deviation of 1 to 3, attention is peaked, norm
weights differ from 1 and biases from 0, and every step of greedy decoding wins by a margin far above f32 rounding.
"""

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()

ROOT = Path(__file__).resolve().parent.parent
LLAMA_DIR = ROOT / "llmkit-core/tests/fixtures/llama"
PEFT_DIR = ROOT / "llmkit-peft/tests/fixtures"

# Greedy decoding must not hang on the order of f32 sums: the winner leads by at least this much at every step.
MIN_MARGIN = 0.01
NEW_TOKENS = 64

# 3 heads of 16 over hidden 48: no dimension of a weight equals another by accident.
SMALL = dict(
    vocab_size=101,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
    attn_implementation="eager",
)


def llama_config(**changes):
    """The small Llama config with `changes` on top."""
    return LlamaConfig(**{**SMALL, **changes})


def mistral_config(**changes):
    """The small config as Mistral without a sliding window."""
    return MistralConfig(**{**SMALL, "sliding_window": None, **changes})


def randomise(model, seed):
    """Fills every parameter of `model` from `seed`; nothing stays at its usual start (norms of 1, biases of 0)."""
    generator = torch.Generator().manual_seed(seed)
    hidden = model.config.hidden_size
    gemma = model.config.model_type.startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            # Gemma multiplies by 1 + weight; what its blocks add must not drown in its scaled embeddings.
            value = (1.0 if not gemma or "post_" in name or name == "model.norm.weight" else 0.0) + 0.25 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "embed_tokens" in name or "lm_head" in name:
            # The final norm has unit variance, so this gives logits a standard deviation of about 2.
            value = noise * (1.0 if gemma else 2.0) / hidden**0.5
        else:
            # Queries and keys are larger, so that attention is peaked and a wrong rotation moves the logits.
            gain = 1.4 if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "mlp.gate.")) else 1.0
            value = noise * gain / parameter.shape[-1] ** 0.5
        with torch.no_grad():
            parameter.copy_(value)


def build(config, seed):
    """A model of `config` in f32 with the weights of `seed`."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomise(model, seed)
    return model


def load(folder, **options):
    """A saved model as transformers reads it, computed in f32."""
    options.setdefault("dtype", torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options).eval()


def random_ids(shape, vocab, seed):
    """Token ids in [3, vocab): the first three are special."""
    return torch.randint(3, vocab, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def greedy(model, prompt, steps=NEW_TOKENS):
    """`steps` new tokens by argmax, without a cache and without an end, and the smallest lead of a winner."""
    ids, margin = prompt.clone(), float("inf")
    for _ in range(steps):
        top = model(ids, use_cache=False).logits[:, -1].topk(2)
        margin = min(margin, (top.values[:, 0] - top.values[:, 1]).min().item())
        ids = torch.cat([ids, top.indices[:, :1]], dim=1)
    return ids[:, prompt.shape[1] :], margin


@torch.no_grad()
def generate(model, prompt, steps=NEW_TOKENS):
    """The same by transformers' own `generate`, with its cache."""
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=steps, do_sample=False, pad_token_id=0)
    return out[:, prompt.shape[1] :]


def expectations(model, seed=7):
    """`input_ids`, `logits`, `prompt_ids`, `greedy_ids` of a model, or `None` when greedy decoding is too close to call."""
    vocab = model.config.vocab_size
    input_ids, prompt_ids = random_ids((2, 17), vocab, seed), random_ids((1, 7), vocab, seed + 1)
    greedy_ids, margin = greedy(model, prompt_ids)
    if margin < MIN_MARGIN or greedy_ids.unique().numel() < 16:
        return None
    if not torch.equal(generate(model, prompt_ids), greedy_ids):
        raise SystemExit("greedy decoding with and without a cache differ")
    with torch.no_grad():
        logits = model(input_ids).logits
    check_logits_scale(logits)
    print(f"  margin {margin:.4f}, {greedy_ids.unique().numel()} distinct tokens, logits' deviation {logits.std():.2f}")
    return {"input_ids": input_ids, "logits": logits, "prompt_ids": prompt_ids, "greedy_ids": greedy_ids}


def check_logits_scale(logits):
    """Logits that are tiny or not finite would make a test that cannot fail."""
    if not torch.isfinite(logits).all() or not 0.8 < logits.std().item() < 4.0:
        raise SystemExit(f"logits' standard deviation is {logits.std().item()}: weights are badly scaled")


def fresh(folder):
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def save_tensors(path, tensors):
    """Writes a safetensors file of contiguous tensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def write_json(path, value):
    """Writes JSON with sorted keys and a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
