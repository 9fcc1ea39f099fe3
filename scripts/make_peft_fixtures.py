"""Writes llmkit-peft/tests/fixtures/peft: LoRA adapters as PEFT saves them, and what PEFT computes with them.

Each folder is what `save_pretrained` wrote (but its README.md), plus:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures/llama, or beside it
  expected.safetensors  input_ids [2, 9] i64; logits [2, 9, vocab] f32 with the adapter active; merged_logits after merge_and_unload
All expectations come from the adapter as PEFT loads it from the folder. Needs the folders of make_llama_fixtures.py and make_decoder_fixtures.py.

`match.json` lists settings and, for each, the modules of a 3-layer Llama that PEFT adapts, with r, alpha and the scale; or what kind of error it gives.
The keys of rank_pattern and alpha_pattern are in sorted order there, as in any saved adapter_config.json: the first that matches wins.

Run: python scripts/make_peft_fixtures.py
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import warnings

import torch

from tiny_models import LLAMA_DIR, PEFT_DIR, check_logits_scale, fresh, llama_config, load, random_ids, save_tensors, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

OUT = PEFT_DIR / "peft"
# An adapter that hardly moves the logits would let a wrong scale pass.
MIN_EFFECT = 0.3
MAX_MERGE_ERROR = 1e-4

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name -> (base, LoraConfig's arguments)
VARIANTS = {
    "lora-qv": ("gqa-tied", {}),
    "lora-all-linear-rslora": ("gqa-tied", dict(target_modules="all-linear", r=6, lora_alpha=12, use_rslora=True)),
    "lora-patterns": (
        "gqa-tied",
        dict(
            target_modules=SEVEN,
            r=4,
            lora_alpha=6,
            rank_pattern={"q_proj": 2, "layers.1.self_attn.v_proj": 3, r".*\.mlp\.(up|gate)_proj": 5, r"layers\.[02]\.mlp\.down_proj": 7},
            alpha_pattern={"k_proj": 3, "model.layers.2.self_attn.o_proj": 9, r".*layers\.\d+\.mlp\.up_proj": 10},
        ),
    ),
    "lora-layers": ("gqa-tied", dict(target_modules=["q_proj", "o_proj", "down_proj"], layers_to_transform=[1], lora_alpha=16)),
    "lora-regex": ("gqa-tied", dict(target_modules=r"model\.layers\.[02]\.(self_attn\.(q|k)_proj|mlp\.up_proj)", r=5, lora_alpha=10)),
    "lora-bias-all": ("head-dim-bias", dict(bias="all", r=4)),
    "lora-bias-lora-only": ("head-dim-bias", dict(bias="lora_only", r=4)),
    "lora-modules-to-save": ("untied-llama3", dict(modules_to_save=["lm_head"], r=4)),
    "lora-modules-to-save-embed": ("untied-llama3", dict(modules_to_save=["embed_tokens", "lm_head"], r=4)),
    "lora-exclude": ("gqa-tied", dict(target_modules="all-linear", exclude_modules=["layers.0.mlp.up_proj", "k_proj"], r=4, lora_alpha=8)),
    "lora-b-bias": ("head-dim-bias", dict(target_modules=["q_proj", "down_proj"], lora_bias=True, r=4, lora_alpha=6)),
    "lora-subfolder": ("gqa-tied", dict(target_modules=["v_proj", "down_proj"], r=3, lora_alpha=6)),
    # Of other architectures. For experts, PEFT's "all-linear" means `target_parameters`, which llmkit refuses.
    "lora-gemma3": ("../decoders/gemma3", dict(target_modules="all-linear", r=2, lora_alpha=4)),
    "lora-phi3": ("../decoders/phi3", dict(target_modules="all-linear", r=2, lora_alpha=4)),
    "lora-qwen3-moe": ("../decoders/qwen3-moe", dict(target_modules=["q_proj", "v_proj"], r=2, lora_alpha=4)),
}


def randomise_adapter(model, bias, seed):
    """Fills everything the adapter saves from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if "lora_A" in name:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            elif "lora_B" in name and name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            elif "lora_B" in name:
                parameter.copy_(0.5 * noise / parameter.shape[1] ** 0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.15 * noise)
            elif name.endswith("bias") and parameter.requires_grad and bias != "none":
                parameter.add_(0.3 * noise)


@torch.no_grad()
def make(name, base_name, arguments, seed):
    """Saves one adapter and what PEFT computes with it."""
    folder, adapter = fresh(OUT / name), "other" if name == "lora-subfolder" else "default"
    config = LoraConfig(task_type="CAUSAL_LM", **arguments)
    # Without gradients frozen and trained look alike, and which biases are trained is what `bias` sets.
    with torch.enable_grad():
        made = get_peft_model(load(base_name), config, adapter_name=adapter).eval()
    randomise_adapter(made, config.bias, seed)
    made.save_pretrained(folder)
    for card in folder.rglob("README.md"):
        card.unlink()

    input_ids = random_ids((2, 9), made.config.vocab_size, seed)
    saved = folder / adapter if adapter != "default" else folder
    loaded = PeftModel.from_pretrained(load(base_name), str(saved)).eval()
    logits = loaded(input_ids).logits
    if not torch.equal(logits, made(input_ids).logits):
        raise SystemExit(f"{name}: the saved adapter computes something else")
    check_logits_scale(logits)
    effect = (logits - load(base_name)(input_ids).logits).abs().max().item()
    merged_logits = loaded.merge_and_unload()(input_ids).logits
    error = (logits - merged_logits).abs().max().item()
    if effect < MIN_EFFECT or error > MAX_MERGE_ERROR:
        raise SystemExit(f"{name}: effect {effect}, merge error {error}")
    print(f"{name}: effect {effect:.2f}, merge error {error:.1e}")
    (folder / "base.txt").write_text(base_name + "\n")
    save_tensors(folder / "expected.safetensors", {"input_ids": input_ids, "logits": logits, "merged_logits": merged_logits})
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


# The fields left out are at their defaults: r 8, lora_alpha 8, no patterns.
MATCHES = [
    dict(target_modules=None),
    dict(target_modules="all-linear"),
    dict(target_modules="ALL-LINEAR"),
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=["proj"]),
    dict(target_modules=["_proj", "k_proj"]),
    dict(target_modules=["self_attn.q_proj", "down_proj"]),
    dict(target_modules=["layers.1.self_attn.q_proj"]),
    dict(target_modules=["model.layers.1.self_attn.q_proj", "1.mlp.up_proj"]),
    dict(target_modules=["self_attn"]),
    dict(target_modules=["q_proj", "no_such_proj"]),
    dict(target_modules=["lm_head", "q_proj"]),
    dict(target_modules=["embed_tokens", "v_proj"]),
    dict(target_modules=r".*\.(q|v)_proj"),
    dict(target_modules=r"q_proj|v_proj"),
    dict(target_modules=r".*q_proj|model\.layers\.0\.mlp\.up_proj"),
    dict(target_modules=r"model\.layers\.\d+\.self_attn\.[qk]_proj"),
    dict(target_modules=r"model.layers.[12].*_proj"),
    dict(target_modules="q_proj"),
    dict(target_modules=r".*\.LAYERS\..*"),
    dict(target_modules="all-linear", exclude_modules=["q_proj"]),
    dict(target_modules="all-linear", exclude_modules=["mlp"]),
    dict(target_modules="all-linear", exclude_modules=r".*\.mlp\..*|model\.layers\.0\..*"),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=["layers.2.self_attn.k_proj"]),
    dict(target_modules=["q_proj"], exclude_modules=["q_proj"]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=1),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[]),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=["h", "layers"]),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="h"),
    dict(target_modules=["q_proj", "lm_head"], layers_to_transform=[1]),
    dict(target_modules=["model.layers.0.self_attn.q_proj", "v_proj"], layers_to_transform=[2]),
    dict(target_modules=["q_proj"], layers_to_transform=[7]),
    dict(target_modules=r".*q_proj", layers_to_transform=[1]),
    dict(target_modules=["q_proj"], layers_pattern="layers"),
    dict(target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 32}),
    dict(target_modules=["q_proj", "v_proj"], rank_pattern={"proj": 4, "_proj": 5, ".*_proj": 6}),
    dict(target_modules=["q_proj", "v_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 4, "self_attn.q_proj": 3}),
    dict(target_modules=["q_proj", "v_proj"], rank_pattern={"model.layers.0.self_attn.q_proj": 2, "1.self_attn.q_proj": 4}),
    dict(target_modules=["q_proj", "up_proj"], rank_pattern={r"layers\.[01]\..*": 2, "q_proj|up_proj": 3}),
    dict(target_modules=["q_proj", "up_proj"], alpha_pattern={"^q_proj": 2, r"^model\.layers\.2\.mlp\.up_proj": 3}, rank_pattern={"self_attn": 1}),
    dict(target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2, ".*v_proj": 3}, alpha_pattern={"q_proj": 6}, use_rslora=True),
    dict(target_modules="all-linear", modules_to_save=["lm_head"]),
    dict(target_modules="all-linear", modules_to_save=["mlp"]),
    dict(target_modules=["q_proj", "lm_head"], modules_to_save=["lm_head", "embed_tokens"]),
    dict(target_modules=["q_proj", "up_proj"], modules_to_save=["layers.0"]),
]


# How PEFT's message starts -> what went wrong.
ERRORS = {
    "Target modules ": "nothing matches",
    "No modules were targeted": "everything that matches is excluded",
    "Target module ": "a matched module cannot be adapted",
    "`layers_to_transform` cannot": "layers_to_transform with a regex",
    "When `layers_pattern`": "layers_pattern without layers_to_transform",
}


def adapted(settings, model_config):
    """The modules that PEFT adapts under `settings`, or what kind of error it gives."""
    with torch.device("meta"):
        model = LlamaForCausalLM(model_config)
    try:
        peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
    except ValueError as error:
        for start, kind in ERRORS.items():
            if str(error).startswith(start):
                return {"error": kind}
        raise
    modules = [
        {"name": name.removeprefix("base_model.model."), "r": module.r["default"], "alpha": module.lora_alpha["default"], "scale": module.scaling["default"]}
        for name, module in peft_model.named_modules()
        if hasattr(module, "lora_A")
    ]
    return {"modules": modules}


def matches():
    """Writes match.json."""
    model_config, cases = llama_config(num_hidden_layers=3), []
    for settings in MATCHES:
        for pattern in ("rank_pattern", "alpha_pattern"):
            if pattern in settings:
                settings = {**settings, pattern: dict(sorted(settings[pattern].items()))}
        outcome = adapted(settings, model_config)
        print(f"  {settings}: {len(outcome['modules']) if 'modules' in outcome else outcome['error']}")
        cases.append({"settings": settings, **outcome})
    every = [name for name, module in LlamaForCausalLM(model_config).named_modules() if not list(module.children()) and list(module.parameters())]
    write_json(OUT / "match.json", {"modules_with_weights": every, "cases": cases})


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    # Bases are loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(LLAMA_DIR)
    for seed, (name, (base_name, arguments)) in enumerate(VARIANTS.items(), start=100):
        make(name, base_name, arguments, seed)
    matches()


if __name__ == "__main__":
    main()
