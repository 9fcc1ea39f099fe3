"""Writes llmkit-peft/tests/fixtures/scalers: adapters of IA3, LN tuning, VeRA, AdaLoRA and BEFT as PEFT saves them, and what PEFT computes.

Each folder is what `save_pretrained` wrote (but its README.md), plus:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures/llama, or beside it
  expected.safetensors  input_ids i64; logits f32 with the adapter active (an encoder's are its token vectors, zeros behind each row's
                        length; a sequence classifier's its scores); merged_logits after merge_and_unload, where PEFT merges;
                        for encoders also lengths and token_type_ids
All expectations come from the adapter as PEFT loads it from the folder. Needs the folders of make_llama_fixtures.py,
make_decoder_fixtures.py and make_encoder_fixtures.py.

`adalora-run` is a short training: `start` is the adapter before it; expected.safetensors has input_ids and labels [steps, 2, 9], the logits
after the run, and the final importance-masked factors; run.json has the settings, the losses (penalty included) and the ranks after every
step. `torch_uniform.json` has draws of torch's CPU generator as the bits of f32.

Run: python scripts/make_peft_scalers_fixtures.py
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import json
import warnings

import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from make_encoder_fixtures import batch as encoder_batch
from tiny_models import LLAMA_DIR, PEFT_DIR, check_logits_scale, fresh, load, random_ids, save_tensors, write_json
from peft import AdaLoraConfig, BeftConfig, IA3Config, LNTuningConfig, PeftModel, VeraConfig, get_peft_model

OUT = PEFT_DIR / "scalers"
# An adapter that hardly moves the output would let a mistake pass.
MIN_EFFECT = 0.3
MAX_MERGE_ERROR = 1e-4

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QWEN2, QWEN3, GEMMA3 = "../decoders/qwen2-window", "../decoders/qwen3", "../decoders/gemma3"
BERT, BERT_SEQUENCE = "../encoders/bert", "../encoders/bert-sequence"


def adalora(**arguments):
    return AdaLoraConfig(**{"total_step": 20, "init_r": 4, "target_r": 2, "lora_alpha": 8, **arguments})


# name -> (base, config class or function, its arguments)
VARIANTS = {
    "ia3-llama": ("gqa-tied", IA3Config, {}),
    "ia3-llama-biases": (
        "head-dim-bias",
        IA3Config,
        dict(target_modules=["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"], feedforward_modules=["up_proj", "down_proj"]),
    ),
    "ia3-no-feedforward": ("gqa-tied", IA3Config, dict(target_modules=["k_proj", "down_proj"], feedforward_modules=[])),
    "ia3-regex": (
        "gqa-tied",
        IA3Config,
        dict(target_modules=r".*\.(q_proj|up_proj)", feedforward_modules=r".*\.layers\.[02]\.mlp\..*", exclude_modules=["layers.1.self_attn.q_proj"]),
    ),
    "ia3-qwen2": (QWEN2, IA3Config, {}),
    "ia3-bert": (BERT, IA3Config, {}),
    "ia3-bert-sequence": (BERT_SEQUENCE, IA3Config, {}),
    "ln-llama": ("gqa-tied", LNTuningConfig, {}),
    "ln-qwen3": (QWEN3, LNTuningConfig, {}),
    "ln-gemma3": (GEMMA3, LNTuningConfig, {}),
    "ln-bert": (BERT, LNTuningConfig, dict(target_modules=["LayerNorm"])),
    "ln-bert-sequence": (BERT_SEQUENCE, LNTuningConfig, dict(target_modules=["output.LayerNorm"])),
    "ln-other-layers": ("head-dim-bias", LNTuningConfig, dict(target_modules=["norm", "v_proj", "layers.1.mlp.up_proj"])),
    "vera-llama": ("gqa-tied", VeraConfig, dict(r=4)),
    "vera-all-linear": ("gqa-tied", VeraConfig, dict(r=5, target_modules="all-linear", save_projection=False, projection_prng_key=12345)),
    "vera-bias-all": ("head-dim-bias", VeraConfig, dict(r=3, bias="all", save_projection=False)),
    "vera-bias-vera-only": ("head-dim-bias", VeraConfig, dict(r=3, bias="vera_only", target_modules=["q_proj", "down_proj"])),
    "vera-qwen3": (QWEN3, VeraConfig, dict(r=4, d_initial=0.3, layers_to_transform=[1], save_projection=False, projection_prng_key=2**40 + 3)),
    "vera-bert": (BERT, VeraConfig, dict(r=4, bias="all", target_modules=["query", "dense"], save_projection=False, projection_prng_key=7)),
    "adalora-llama": ("gqa-tied", adalora, {}),
    "adalora-ranks": ("gqa-tied", adalora, dict(target_modules=SEVEN)),
    "adalora-bias-all": ("head-dim-bias", adalora, dict(bias="all")),
    "adalora-bias-lora-only": ("head-dim-bias", adalora, dict(bias="lora_only", lora_alpha=-1)),
    "adalora-qwen2-ranks": (QWEN2, adalora, dict(init_r=3, target_r=1, target_modules=["q_proj", "down_proj"])),
    "adalora-bert-ranks": (BERT, adalora, dict(target_modules=["query", "value", "output.dense"])),
    "beft-llama": ("gqa-tied", BeftConfig, {}),
    "beft-llama-biases": ("head-dim-bias", BeftConfig, dict(target_modules=SEVEN)),
    "beft-qwen2": (QWEN2, BeftConfig, dict(target_modules=["q_proj", "k_proj", "v_proj"])),
    "beft-bert": (BERT, BeftConfig, dict(target_modules=["query", "key", "value", "dense"])),
    "bitfit-bert": (BERT, BeftConfig, dict(target_modules=["query", "key", "value", "dense"], modules_to_save=["LayerNorm"])),
}


def base(name):
    if name == BERT:
        return AutoModel.from_pretrained(name, attn_implementation="eager", dtype=torch.float32).eval()
    if name == BERT_SEQUENCE:
        return AutoModelForSequenceClassification.from_pretrained(name, attn_implementation="eager", dtype=torch.float32).eval()
    return load(name)


def task(name):
    return {BERT: "FEATURE_EXTRACTION", BERT_SEQUENCE: "SEQ_CLS"}.get(name, "CAUSAL_LM")


def inputs_of(name, config, seed):
    if name in (BERT, BERT_SEQUENCE):
        return encoder_batch(config)
    return {"input_ids": random_ids((1, 9), config.vocab_size, seed)}


def output(name, model, inputs):
    result = model(**inputs)
    if name == BERT:
        return result.last_hidden_state * inputs["attention_mask"][..., None]
    return result.logits


def randomise_adapter(model, kind, name, seed):
    """Fills everything the adapter saves from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    bias = getattr(model.peft_config["default"], "bias", "none")
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if "ia3_l" in key:
                parameter.add_(0.4 * noise)
            elif "ln_tuning_layers" in key or "modules_to_save.default" in key:
                # What BitFit leaves alone.
                if not (name.startswith("bitfit") and key.endswith("weight")):
                    parameter.add_(0.25 * noise)
            elif "vera_lambda" in key:
                parameter.copy_(noise)
            elif "ranknum" in key:
                pass
            elif "lora_E" in key:
                parameter.copy_(2.0 * noise)
            elif "lora_A" in key:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            elif "lora_B" in key:
                parameter.copy_(noise / max(parameter.shape[1], 1) ** 0.5)
            elif "beft_bias" in key:
                parameter.copy_(0.5 * noise)
            elif key.endswith("bias") and parameter.requires_grad and bias != "none":
                parameter.add_(0.3 * noise)


def prune(model, seed):
    """What AdaLoRA's allocation leaves behind: some singular values masked, of some layers all, of others none."""
    generator = torch.Generator().manual_seed(seed)
    pattern = {}
    for index, (key, parameter) in enumerate((k, p) for k, p in model.base_model.model.named_parameters() if "lora_E.default" in k):
        ranks = parameter.shape[0]
        keep = torch.rand(ranks, generator=generator) < 0.5
        if index % 5 == 2:
            keep = torch.zeros(ranks, dtype=torch.bool)
        if index % 5 == 3:
            keep = torch.ones(ranks, dtype=torch.bool)
        with torch.no_grad():
            parameter.masked_fill_(~keep[:, None], 0.0)
        pattern[key] = keep.tolist()
    model.peft_config["default"].rank_pattern = pattern


@torch.no_grad()
def make(name, base_name, kind, arguments, seed):
    """Saves one adapter and what PEFT computes with it."""
    folder = fresh(OUT / name)
    config = kind(task_type=task(base_name), **arguments)
    # Without gradients frozen and trained look alike, and which biases are trained is what `bias` sets.
    with torch.enable_grad():
        made = get_peft_model(base(base_name), config).eval()
    randomise_adapter(made, kind, name, seed)
    if name.endswith("ranks"):
        prune(made, seed)
    made.save_pretrained(folder)
    for card in folder.rglob("README.md"):
        card.unlink()

    inputs = inputs_of(base_name, made.config, seed)
    loaded = PeftModel.from_pretrained(base(base_name), str(folder)).eval()
    logits = output(base_name, loaded, inputs)
    off = (logits - output(base_name, made, inputs)).abs().max().item()
    if off > 1e-5:
        raise SystemExit(f"{name}: the saved adapter computes something else, by {off}")
    # BERT's vectors spread less than scores over a vocabulary; the effect below is check enough.
    if base_name not in (BERT, BERT_SEQUENCE):
        check_logits_scale(logits)
    effect = (logits - output(base_name, base(base_name), inputs)).abs().max().item()
    tensors = {"input_ids": inputs["input_ids"], "logits": logits}
    if "attention_mask" in inputs:
        tensors["lengths"] = inputs["attention_mask"].sum(1)[None]
        tensors["token_type_ids"] = inputs["token_type_ids"]
    error = 0.0
    # BEFT refuses to merge into a layer without a bias.
    if name != "beft-llama":
        merged = output(base_name, loaded.merge_and_unload(), inputs)
        error = (logits - merged).abs().max().item()
        tensors["merged_logits"] = merged
    if effect < MIN_EFFECT or error > MAX_MERGE_ERROR:
        raise SystemExit(f"{name}: effect {effect}, merge error {error}")
    print(f"{name}: effect {effect:.2f}, merge error {error:.1e}")
    (folder / "base.txt").write_text(base_name + "\n")
    save_tensors(folder / "expected.safetensors", tensors)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


RUN = dict(target_modules=["q_proj", "v_proj", "down_proj"], init_r=4, target_r=2, tinit=2, tfinal=3, deltaT=2, total_step=12, lora_alpha=8, orth_reg_weight=0.3)
LEARNING_RATE = 0.02
# With Adam's usual 1e-8, elements whose gradient is nearly zero step by rounding errors, and two runs in f32 part.
EPS = 1e-3


def ranks(model):
    """How many singular values of each layer aren't zero."""
    return [int((p != 0).sum()) for k, p in model.named_parameters() if "lora_E.default" in k]


def adalora_run():
    """Trains with torch's AdamW, clipping and `update_and_allocate`, as PEFT's documentation has it."""
    folder = fresh(OUT / "adalora-run")
    torch.manual_seed(5)
    model = get_peft_model(load("gqa-tied"), AdaLoraConfig(task_type="CAUSAL_LM", **RUN))
    # Far enough from the start (E is zero there) for importance to differ between triplets.
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_E" in key:
                parameter.copy_(0.3 * noise)
            elif "lora_A" in key or "lora_B" in key:
                parameter.copy_(0.3 * noise)
    model.save_pretrained(folder / "start")
    (folder / "start/README.md").unlink()
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, eps=EPS, weight_decay=0.0)
    ids = torch.stack([random_ids((2, 9), model.config.vocab_size, 40 + step) for step in range(RUN["total_step"])])
    labels = ids.clone()
    labels[:, :, :3] = -100
    losses, norms, all_ranks = [], [], []
    for step in range(RUN["total_step"]):
        loss = model(input_ids=ids[step], labels=labels[step]).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trainable, 1.0).item())
        optimizer.step()
        model.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
        losses.append(loss.item())
        all_ranks.append(ranks(model))
    final = all_ranks[-1]
    if sum(final) != RUN["target_r"] * len(final) or len(set(final)) < 3:
        raise SystemExit(f"adalora-run: ranks {final} show too little")
    model.eval()
    with torch.no_grad():
        logits = model(ids[0]).logits
    # PEFT's own file of the result, and what it computes.
    model.save_pretrained(folder / "end")
    (folder / "end/README.md").unlink()
    save_tensors(folder / "expected.safetensors", {"input_ids": ids.flatten(0, 1), "labels": labels.flatten(0, 1), "logits": logits})
    facts = {"learning_rate": LEARNING_RATE, "eps": EPS, "losses": losses, "grad_norms": norms, "ranks": all_ranks}
    (folder / "run.json").write_text(json.dumps(facts, sort_keys=True) + "\n")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"adalora-run: losses {losses[0]:.3f} to {losses[-1]:.3f}, ranks {final}")


def torch_uniform():
    """Draws of `uniform_` as f32 bits: for each key two tensors in a row, as VeRA draws its projections."""
    cases = []
    for key, bound in [(0, 1.0), (1, 0.35), (12345, 0.5), (2**40 + 3, 2.449489742783178), (-3, 1.5), (2**63 - 1, 0.1)]:
        generator = torch.Generator().manual_seed(key)
        # 700 draws: more than the 624 of one turn of the generator.
        draws = torch.cat([torch.empty(shape).uniform_(-bound, bound, generator=generator).flatten() for shape in [(5, 7), (5, 133)]])
        bits = draws.view(torch.int32).tolist()
        cases.append({"key": key, "bound": bound, "first": bits[:8], "last": bits[-8:], "sum": sum(b & 0xFFFFFFFF for b in bits), "count": len(bits)})
    write_json(OUT / "torch_uniform.json", cases)


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    only = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    # Bases are loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(LLAMA_DIR)
    for seed, (name, (base_name, kind, arguments)) in enumerate(VARIANTS.items(), start=300):
        if not only or name in only:
            make(name, base_name, kind, arguments, seed)
    if not only or "adalora-run" in only:
        adalora_run()
    if not only or "torch_uniform" in only:
        torch_uniform()


if __name__ == "__main__":
    main()
