"""Writes llmkit-peft/tests/fixtures/lowrank: LoRA's options (DoRA, embeddings, single tokens, PiSSA, OLoRA, EVA, LoRA+) as PEFT saves and computes them.

Each folder is what `save_pretrained` wrote (but its README.md), plus:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures
  expected.safetensors  input_ids [2, 6] i64; output [2, 9, vocab or hidden] f32 with the adapter active: a causal model's logits, an encoder's
                        vectors; merged after merge_and_unload, where PEFT's merging computes the same; grad.KEY of sum(output^2) / 2 for some

dora-dropout/expected.safetensors holds input, one layer's tensors and its output with dropout active, where every element of the input's first
half survived and every one of the second half was dropped: layer-level, since torch's random choices are its own.
loftq.safetensors holds a weight, and for one and three iterations what PEFT's loftq_init rounds it to and the product of its factors.
eva/ holds the batches, and the components and ranks that PEFT found; loraplus.json the learning rate of each parameter.

Run: python scripts/make_peft_lowrank_fixtures.py
Needs bitsandbytes as well. Names of folders, or `loftq`, make only those.
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import warnings

import torch

from tiny_models import PEFT_DIR, ROOT, fresh, random_ids, save_tensors, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora.config import EvaConfig
from peft.tuners.lora.eva import get_eva_state_dict, initialize_lora_eva_weights
from transformers import AutoModel, AutoModelForCausalLM

OUT = PEFT_DIR / "lowrank"
BASES = ROOT / "llmkit-core/tests/fixtures"
LLAMA, UNTIED, QWEN, QWEN3, BERT = "llama/gqa-tied", "llama/untied-llama3", "decoders/qwen2-window", "decoders/qwen3-tied", "encoders/bert"
# An adapter that hardly moves the output would let a wrong scale pass.
MIN_EFFECT = 0.2
MAX_MERGE_ERROR = 1e-4
FIRST = dict(layers_to_transform=[0])

# name -> (base, LoraConfig's arguments). `merge=False`: what PEFT merges computes something else than the adapter (a tied head follows the
# embedding, although it did not before).
VARIANTS = {
    "dora-llama": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], r=2, lora_alpha=3, use_dora=True, **FIRST)),
    "dora-qwen": (QWEN, dict(target_modules=["q_proj", "k_proj"], r=2, lora_alpha=4, use_dora=True, use_rslora=True)),
    "dora-bert": (BERT, dict(target_modules=["query", "dense"], r=2, lora_alpha=3, use_dora=True)),
    "dora-embedding": (UNTIED, dict(target_modules=["embed_tokens", "v_proj"], r=2, lora_alpha=3, use_dora=True)),
    "dora-embedding-bert": (BERT, dict(target_modules=["word_embeddings", "query"], r=2, lora_alpha=3, use_dora=True)),
    "bias-qwen": (QWEN, dict(target_modules=["q_proj", "v_proj"], r=2, lora_alpha=3, lora_bias=True)),
    "bias-bert": (BERT, dict(target_modules=["query", "value"], r=2, lora_alpha=3, lora_bias=True, bias="all")),
    "embedding-llama": (LLAMA, dict(target_modules=["embed_tokens", "q_proj"], r=2, lora_alpha=3, merge=False)),
    "embedding-untied": (UNTIED, dict(target_modules=["embed_tokens", "lm_head"], r=2, lora_alpha=3, use_rslora=True)),
    "embedding-qwen-tied": (QWEN3, dict(target_modules=["embed_tokens", "v_proj"], r=2, lora_alpha=3, ensure_weight_tying=True, merge=False)),
    "embedding-qwen-tied-regex": (QWEN3, dict(target_modules=r".*(embed_tokens|q_proj)", r=2, lora_alpha=3, ensure_weight_tying=True, merge=False)),
    "embedding-bert": (BERT, dict(target_modules=["word_embeddings", "token_type_embeddings", "query"], r=2, lora_alpha=3)),
    "head-tied": (QWEN3, dict(target_modules=["lm_head"], r=2, lora_alpha=3, merge=False)),
    "saved-qwen-tied": (QWEN3, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], r=2, lora_alpha=3, ensure_weight_tying=True)),
    "tokens-llama": (LLAMA, dict(target_modules=["q_proj"], r=2, lora_alpha=3, trainable_token_indices=[5, 3, 40])),
    "tokens-qwen": (QWEN, dict(target_modules=["v_proj"], r=2, lora_alpha=3, trainable_token_indices={"embed_tokens": [7, 9], "lm_head": [3, 9, 20]}, merge=False)),
    "tokens-tied-dict": (LLAMA, dict(target_modules=["q_proj"], r=2, trainable_token_indices={"embed_tokens": [5, 8], "lm_head": [5, 8]})),
    "tokens-bert": (BERT, dict(target_modules=["query"], r=2, lora_alpha=3, trainable_token_indices=[4, 11, 12])),
    "pissa-llama": (LLAMA, dict(target_modules=["q_proj", "down_proj"], r=3, lora_alpha=6, init_lora_weights="pissa", **FIRST)),
    "pissa-qwen": (QWEN, dict(target_modules=["k_proj"], r=3, lora_alpha=2, init_lora_weights="pissa", use_rslora=True)),
    "pissa-bert": (BERT, dict(target_modules=["query", "intermediate.dense"], r=2, lora_alpha=2, init_lora_weights="pissa", rank_pattern={"query": 3})),
    "olora-llama": (LLAMA, dict(target_modules=["q_proj", "up_proj"], r=3, lora_alpha=2, init_lora_weights="olora", **FIRST)),
    "olora-qwen": (QWEN, dict(target_modules=["v_proj", "o_proj"], r=2, lora_alpha=3, init_lora_weights="olora")),
    "olora-bert": (BERT, dict(target_modules=["value"], r=2, lora_alpha=3, init_lora_weights="olora")),
    "orthogonal-llama": (LLAMA, dict(target_modules=["q_proj"], r=2, lora_alpha=3, init_lora_weights="orthogonal")),
    "pissa-dora": (LLAMA, dict(target_modules=["v_proj"], r=2, lora_alpha=3, init_lora_weights="pissa", use_dora=True, **FIRST)),
    # As PEFT's own conversion writes them: ordinary LoRAs of twice the rank.
    "pissa-converted": (LLAMA, dict(target_modules=["q_proj", "v_proj"], r=2, lora_alpha=3, init_lora_weights="pissa", rank_pattern={"v_proj": 3}, alpha_pattern={"q_proj": 5}, convert=True)),
    "olora-converted": (BERT, dict(target_modules=["query"], r=2, lora_alpha=3, init_lora_weights="olora", use_rslora=True, convert=True)),
}
WITH_GRADIENTS = {"dora-llama", "dora-embedding", "embedding-qwen-tied", "tokens-llama", "pissa-llama"}


def load(base):
    kind = AutoModel if base.startswith("encoders/") else AutoModelForCausalLM
    return kind.from_pretrained(BASES / base, attn_implementation="eager", dtype=torch.float32).eval()


def output(model, input_ids):
    result = model(input_ids)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


@torch.no_grad()
def randomise(model, seed):
    """Moves everything that the adapter saves away from its start."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        init = model.peft_config["default"].init_lora_weights
        if not parameter.requires_grad:
            continue
        if init in ("pissa", "olora"):
            if "lora_" in name:
                parameter.add_(noise * parameter.std() * 0.5)
        elif "lora_A" in name:
            parameter.copy_(noise / parameter.shape[1] ** 0.5)
        elif "lora_embedding" in name:
            parameter.copy_(0.4 * noise)
        elif "lora_magnitude" in name:
            parameter.mul_(1 + 0.25 * noise)
        elif "lora_B" in name and name.endswith(".bias"):
            parameter.copy_(0.3 * noise)
        elif "lora_B" in name:
            parameter.copy_(0.7 * noise / parameter.shape[1] ** 0.5)
        elif "trainable_tokens_delta" in name:
            parameter.add_(0.3 * noise)
        elif name.endswith("bias"):
            parameter.add_(0.3 * noise)
        elif "embed_tokens.modules_to_save" in name:
            parameter.add_(0.15 * noise)
        elif "lm_head.modules_to_save" in name:
            pass
        else:
            raise SystemExit(f"{name} is trainable, but what is it?")


def make(name, base, arguments, seed):
    folder = fresh(OUT / name)
    arguments = dict(arguments)
    merges, convert = arguments.pop("merge", True), arguments.pop("convert", False)
    task = "FEATURE_EXTRACTION" if base == BERT else "CAUSAL_LM"
    torch.manual_seed(seed)
    made = get_peft_model(load(base), LoraConfig(task_type=task, **arguments)).eval()
    made.peft_config["default"].base_model_name_or_path = "base"
    if convert:
        initial = fresh(folder / "initial")
        started = made.peft_config["default"].init_lora_weights
        made.peft_config["default"].init_lora_weights = True
        made.save_pretrained(initial)
        made.peft_config["default"].init_lora_weights = started
    randomise(made, seed)
    # The weights of a mutated base are found again from the base itself.
    options = dict(path_initial_model_for_weight_conversion=str(initial)) if convert else {}
    input_ids = random_ids((2, 6), made.config.vocab_size, seed)
    if (indices := arguments.get("trainable_token_indices")) is not None:
        input_ids[0, :3] = torch.tensor((indices["embed_tokens"] if isinstance(indices, dict) else indices) * 2)[:3]
    if name in WITH_GRADIENTS:
        result = output(made, input_ids)
        (result.square().sum() / 2).backward()
        head = next((p.grad for key, p in made.named_parameters() if "lm_head.lora_B" in key), None)
        keys = {} if head is None else {"grad_head.lora_B.transposed": head.T}
        keys |= {f"grad.{key.replace('.default', '').removesuffix('.weight') if 'magnitude' in key else key.replace('.default', '')}": p.grad for key, p in made.named_parameters() if p.grad is not None and "lm_head.lora" not in key}
    else:
        keys = {}
    with torch.no_grad():
        adapted = output(made, input_ids)
        made.save_pretrained(folder, **options)
        for leftover in folder.rglob("README.md"):
            leftover.unlink()
        if convert:
            for file in sorted(initial.rglob("*"), reverse=True):
                file.unlink()
            initial.rmdir()
        loaded = PeftModel.from_pretrained(load(base), str(folder)).eval()
        error = (output(loaded, input_ids) - adapted).abs().max().item()
        effect = (adapted - output(load(base), input_ids)).abs().max().item()
        if error > 2e-5 or effect < MIN_EFFECT:
            raise SystemExit(f"{name}: reloaded differs by {error}, effect {effect}")
        merged = output(loaded.merge_and_unload(), input_ids)
        merge_error = (merged - adapted).abs().max().item()
        if merges and merge_error > MAX_MERGE_ERROR:
            raise SystemExit(f"{name}: merged differs by {merge_error}")
        if not merges and merge_error < 1e-2:
            raise SystemExit(f"{name}: PEFT merges it right, after all")
    print(f"{name}: effect {effect:.2f}, reloaded {error:.1e}, merged {merge_error:.1e}")
    (folder / "base.txt").write_text(base + "\n")
    tensors = {"input_ids": input_ids, "output": adapted, **keys}
    if merges:
        tensors["merged"] = merged
    save_tensors(folder / "expected.safetensors", tensors)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


class Halves(torch.nn.Module):
    """A dropout whose choices are known: the first half survives, scaled as dropout of 0.5 scales; the second is dropped."""

    def forward(self, x):
        keep = torch.zeros(x.shape[-1])
        keep[: x.shape[-1] // 2] = 2.0
        return x * keep


def dora_dropout():
    """One DoRA layer with dropout active."""
    folder = fresh(OUT / "dora-dropout")
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["q_proj"], r=2, lora_alpha=3, use_dora=True, lora_dropout=0.5)
    made = get_peft_model(load(QWEN), config).train()
    randomise(made, 1)
    layer = made.base_model.model.model.layers[0].self_attn.q_proj
    layer.lora_dropout["default"] = Halves()
    x = torch.randn(1, 3, layer.in_features)
    y = layer(x)
    y.square().sum().backward()
    base = layer.base_layer
    save_tensors(
        folder / "expected.safetensors",
        {
            "input": x,
            "weight": base.weight,
            "bias": base.bias,
            "lora_A": layer.lora_A["default"].weight,
            "lora_B": layer.lora_B["default"].weight,
            "magnitude": layer.lora_magnitude_vector["default"].weight,
            "output": y,
        },
    )


def eva():
    """What PEFT's EVA makes of two batches."""
    folder = fresh(OUT / "eva")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "o_proj", "down_proj"],
        r=3,
        lora_alpha=6,
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=2.0, tau=0.999),
    )
    batches = [random_ids((8, 24), 101, seed) for seed in (1, 2)]
    data = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in batches]
    made = get_peft_model(load(LLAMA), config, low_cpu_mem_usage=True)
    made.peft_config["default"].base_model_name_or_path = "base"
    components = get_eva_state_dict(made, data, show_progress_bar=False)
    initialize_lora_eva_weights(made, eva_state_dict=dict(components))
    components = {name.removeprefix("base_model.model."): component for name, component in components.items()}
    made.save_pretrained(folder)
    (folder / "README.md").unlink()
    for name, component in components.items():
        print(f"  eva {name}: {tuple(component.shape)}")
    save_tensors(
        folder / "expected.safetensors",
        {"batch.0": batches[0], "batch.1": batches[1], **{f"components.{name}": c.float() for name, c in components.items() if len(c)}},
    )
    (folder / "base.txt").write_text(LLAMA + "\n")
    (folder / "adapter_model.safetensors").chmod(0o644)


def loftq():
    """PEFT's LoftQ, on the CPU, although its source asks for a GPU."""
    import inspect

    from peft.utils import loftq_utils

    scope = dict(vars(loftq_utils))
    exec(inspect.getsource(loftq_utils.loftq_init).replace('"cuda"', '"cpu"'), scope)
    # 30 * 44 is no multiple of a block's 64 numbers.
    weight = 0.1 * torch.randn(30, 44, generator=torch.Generator().manual_seed(1))
    tensors = {"weight": weight}
    for iterations in (1, 3):
        rounded, a, b = scope["loftq_init"](weight, num_bits=4, reduced_rank=3, num_iter=iterations)
        tensors |= {f"rounded.{iterations}": rounded, f"update.{iterations}": b @ a}
    save_tensors(OUT / "loftq.safetensors", tensors)


def loraplus():
    """The learning rates of create_loraplus_optimizer."""
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"], modules_to_save=["lm_head", "norm"], r=2, use_dora=True, bias="lora_only"
    )
    made = get_peft_model(load("llama/untied-llama3"), config)
    optimizer = create_loraplus_optimizer(made, torch.optim.AdamW, lr=0.5, loraplus_lr_ratio=16.0, loraplus_lr_embedding=0.125)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    named = {name: rates[id(p)] for name, p in made.named_parameters() if id(p) in rates}
    write_json(OUT / "loraplus.json", named)


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    only = sys.argv[1:]
    for seed, (name, (base, arguments)) in enumerate(VARIANTS.items(), start=300):
        if not only or name in only:
            make(name, base, arguments, seed)
    if not only or only == ["loftq"]:
        loftq()
    if not only:
        dora_dropout()
        eva()
        loraplus()


if __name__ == "__main__":
    main()
