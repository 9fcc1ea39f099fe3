"""Writes llmkit-peft/tests/fixtures/working: several LoRAs for one base, and what PEFT computes with them together.

Each folder is for one base model and holds the adapters `first` and `second`, as `save_pretrained` wrote them (but README.md); `llama` has `third`
as well, of other ranks. Beside them:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures/llama, or beside it
  expected.safetensors  input_ids [4, 9] i64; the other tensors are logits (hidden states where the base is an encoder), f32
    stacked [4, 9, _]     after `set_adapter(["first", "second"])`
    rows [4, 9, _]        with `adapter_names=ROWS`
    NAME [1, 9, _]        of the first row after `add_weighted_adapter`, for every NAME in `combinations.json`
  combinations.json     the arguments of `add_weighted_adapter`

DARE keeps numbers at random. Here `torch.bernoulli` draws what llmkit draws: SplitMix64 of a key that follows from the seed 0, the layer's path and
the number of the draw in the layer.

Run: python scripts/make_peft_working_fixtures.py
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import warnings

import numpy
import torch

from tiny_models import LLAMA_DIR, PEFT_DIR, fresh, load, random_ids, save_tensors, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel

OUT = PEFT_DIR / "working"
BASES = LLAMA_DIR
ROWS = ["first", "__base__", "second", "first"]
# Two results that hardly differ would let one pass for the other.
MIN_DIFFERENCE = 1e-2

DECODER = {
    "first": dict(target_modules=["q_proj", "v_proj", "up_proj"], r=4, lora_alpha=6),
    "second": dict(target_modules=["q_proj", "down_proj"], r=4, lora_alpha=10),
}
# folder -> (base, adapters)
FOLDERS = {
    "llama": (
        "gqa-tied",
        DECODER | {"third": dict(target_modules=["q_proj", "k_proj"], r=3, lora_alpha=4, use_rslora=True, rank_pattern={"k_proj": 2})},
    ),
    "qwen3": ("../decoders/qwen3-tied", DECODER),
    "bert": (
        "../encoders/bert",
        {
            "first": dict(target_modules=["query", "value", "intermediate.dense"], r=4, lora_alpha=6),
            "second": dict(target_modules=["query", "output.dense"], r=4, lora_alpha=10),
        },
    ),
    "llama-embedding": ("gqa-tied", {name: arguments | {"target_modules": ["embed_tokens", "v_proj"]} for name, arguments in DECODER.items()}),
}
TWO = dict(adapters=["first", "second"], weights=[0.9, 0.6])
THREE = dict(adapters=["first", "second", "third"], weights=[0.9, 0.6, -0.8])
COMBINATIONS = {
    "linear": dict(combination_type="linear", **TWO),
    "linear_negative": dict(combination_type="linear", adapters=["first", "second"], weights=[1.1, -0.7]),
    "cat": dict(combination_type="cat", **TWO),
    "svd": dict(combination_type="svd", **TWO),
    "svd_rank_2": dict(combination_type="svd", svd_rank=2, **TWO),
    "ties": dict(combination_type="ties", density=0.6, **TWO),
    "ties_frequency": dict(combination_type="ties", density=0.7, majority_sign_method="frequency", **TWO),
    "ties_svd": dict(combination_type="ties_svd", density=0.5, **TWO),
    "dare_linear": dict(combination_type="dare_linear", density=0.7, **TWO),
    "dare_ties": dict(combination_type="dare_ties", density=0.7, **TWO),
    "dare_linear_svd": dict(combination_type="dare_linear_svd", density=0.6, **TWO),
    "dare_ties_svd": dict(combination_type="dare_ties_svd", density=0.6, majority_sign_method="frequency", **TWO),
    "magnitude_prune": dict(combination_type="magnitude_prune", density=0.5, **TWO),
    "magnitude_prune_svd": dict(combination_type="magnitude_prune_svd", density=0.3, **TWO),
    "cat_of_three": dict(combination_type="cat", **THREE),
    "svd_of_three": dict(combination_type="svd", **THREE),
    "ties_svd_of_three": dict(combination_type="ties_svd", density=0.5, svd_rank=6, **THREE),
}

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def derive(key, part):
    return mix(key ^ mix((part + GOLDEN) & MASK))


class Draws:
    """Stands in for `torch.bernoulli` while PEFT combines one layer after another."""

    def __init__(self, model):
        self.paths = {module: name.removeprefix("base_model.model.") for name, module in model.named_modules()}
        self.tuner = model.base_model

    def __enter__(self):
        self.bernoulli, torch.bernoulli = torch.bernoulli, self.draw
        for name in ("_generalized_task_arithmetic_weighted_adapter", "_svd_generalized_task_arithmetic_weighted_adapter"):
            setattr(self.tuner, name, self.noting_layer(getattr(self.tuner, name)))

    def __exit__(self, *_):
        torch.bernoulli = self.bernoulli
        del self.tuner._generalized_task_arithmetic_weighted_adapter
        del self.tuner._svd_generalized_task_arithmetic_weighted_adapter

    def noting_layer(self, combine):
        def wrapped(*arguments, **named):
            target = next(argument for argument in arguments if isinstance(argument, torch.nn.Module))
            self.key, self.count = 0, 0
            for byte in self.paths[target].encode():
                self.key = derive(self.key, byte)
            return combine(*arguments, **named)

        return wrapped

    def draw(self, probabilities):
        density, count = probabilities.flatten()[0].item(), probabilities.numel()
        key = derive(self.key, self.count)
        self.count += 1
        threshold = int(DENSITIES[density] * 0xFFFFFFFF)
        bits = [mix((key + pair * GOLDEN) & MASK) for pair in range((count + 1) // 2)]
        halves = numpy.array([half for both in bits for half in (both & 0xFFFFFFFF, both >> 32)][:count], dtype=numpy.uint64)
        return torch.tensor(halves < threshold).to(probabilities.dtype).reshape(probabilities.shape)


# The f32 that torch is given -> the number that it was.
DENSITIES = {torch.tensor(arguments["density"]).item(): arguments["density"] for arguments in COMBINATIONS.values() if "density" in arguments}


def base(name):
    folder = str(BASES / name)
    if name.startswith("../encoders"):
        return AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return load(folder)


def randomise(model, adapter, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            with torch.no_grad():
                parameter.copy_(noise * (1.0 if "lora_A" in name else 0.7))


def output(model, *arguments, **named):
    result = model(*arguments, **named)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


@torch.no_grad()
def make(name, base_name, adapters, seed):
    folder = fresh(OUT / name)
    task = "FEATURE_EXTRACTION" if base_name.startswith("../encoders") else "CAUSAL_LM"
    for number, (adapter, arguments) in enumerate(adapters.items()):
        made = get_peft_model(base(base_name), LoraConfig(task_type=task, base_model_name_or_path=base_name, **arguments))
        made.peft_config["default"].base_model_name_or_path = base_name
        randomise(made, "default", seed + number)
        made.save_pretrained(folder / adapter)
        (folder / adapter / "README.md").unlink()

    first, *others = adapters
    model = PeftModel.from_pretrained(base(base_name), str(folder / first), adapter_name=first).eval()
    for adapter in others:
        model.load_adapter(str(folder / adapter), adapter)
    input_ids = random_ids((4, 9), model.config.vocab_size, seed)

    expected = {"first": output(model, input_ids)}
    expected["rows"] = output(model, input_ids=input_ids, adapter_names=ROWS)
    model.base_model.set_adapter(["first", "second"])
    expected["stacked"] = output(model, input_ids)
    combinations = {key: arguments for key, arguments in COMBINATIONS.items() if set(arguments["adapters"]) <= set(adapters)}
    one = input_ids[:1]
    if name == "llama-embedding":
        # PEFT draws for an embedding's update transposed.
        combinations = {key: arguments for key, arguments in combinations.items() if not (key.startswith("dare") and key.endswith("svd"))}
    for key, arguments in combinations.items():
        with Draws(model):
            model.base_model.add_weighted_adapter(adapter_name=key, **arguments)
        model.set_adapter(key)
        expected[key] = output(model, one)
        model.delete_adapter(key)
    model.set_adapter("first")
    seen = {}
    for key, values in expected.items():
        for other, theirs in seen.items():
            # Concatenation is exact, and so is the product of two adapters' rank; both are what stacking would give for weights of 1.
            difference = (values[0] - theirs[0]).abs().max().item()
            if difference < MIN_DIFFERENCE and {key, other} not in ({"first", "rows"}, {"ties", "ties_frequency"}):
                raise SystemExit(f"{name}: {key} and {other} differ by {difference} only")
        seen[key] = values
    print(f"{name}: {', '.join(seen)}")
    (folder / "base.txt").write_text(base_name + "\n")
    write_json(folder / "combinations.json", combinations)
    save_tensors(folder / "expected.safetensors", {"input_ids": input_ids} | expected)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for seed, (name, (base_name, adapters)) in enumerate(FOLDERS.items()):
        make(name, base_name, adapters, 700 + 10 * seed)


if __name__ == "__main__":
    main()
