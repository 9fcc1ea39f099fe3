"""Writes llmkit-peft/tests/fixtures/lycoris: LoHa, LoKr, OFT and BOFT adapters as PEFT saves them, and what PEFT computes with them.

Each folder is what `save_pretrained` wrote (but its README.md), plus:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures
  expected.safetensors  input_ids [1, 9] or [3, 13] i64, attention_mask [3, 13] i64 for encoders; output f32 with the adapter active: logits
                        [1, 9, vocab] or [3, labels], or an encoder's hidden states [3, 13, hidden] with zeros behind each row's length;
                        for some also weights (of output's shape) and `grad:KEY`, the gradient of (output * weights).sum()
                        for the adapter's tensor KEY
All expectations come from the adapter as PEFT loads it from the folder; that PEFT's merged model computes the same is checked here.
PEFT builds BOFT's butterflies only where it can compile a CUDA kernel; here a block diagonal in torch stands in for that kernel.
`mlp-METHOD` are adapters of a plain torch module, whose tensors, `x` [7, 12] and outputs by method [7, 5] are in mlp.safetensors.
Needs the folders of make_llama_fixtures.py, make_decoder_fixtures.py and make_encoder_fixtures.py.

Run: python scripts/make_peft_lycoris_fixtures.py
"""

import os
import sys

# PEFT writes sets as lists: without a fixed hash seed the same run gives another order.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import warnings

import torch

from tiny_models import PEFT_DIR, ROOT, fresh, random_ids, save_tensors
from peft import BOFTConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftModel, get_peft_model
from peft.tuners.boft import layer as boft_layer
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

MODELS = ROOT / "llmkit-core/tests/fixtures"
OUT = PEFT_DIR / "lycoris"
# An adapter that hardly moves the output would let a wrong scale pass.
MIN_EFFECT = 0.3
MAX_MERGE_ERROR = 5e-5
LENGTHS = [13, 7, 3]

LLAMA, QWEN3, QWEN3_UNTIED, QWEN2 = "llama/gqa-tied", "decoders/qwen3-tied", "decoders/qwen3", "decoders/qwen2-window"
BERT, BERT_CLASSES = "encoders/bert", "encoders/bert-sequence"
CONFIGS = {"loha": LoHaConfig, "lokr": LoKrConfig, "oft": OFTConfig, "boft": BOFTConfig, "lora": LoraConfig, "dora": LoraConfig}

# name, which starts with the method's -> (base, the configuration's arguments)
VARIANTS = {
    "loha-defaults": (LLAMA, dict(r=4, alpha=6)),
    "loha-patterns": (
        LLAMA,
        dict(
            target_modules=["q_proj", "k_proj", "down_proj", "up_proj"],
            r=2,
            alpha=3,
            rank_pattern={"k_proj": 5, r"layers\.0\.mlp\.up_proj": 1},
            alpha_pattern={"down_proj": 5},
            layers_to_transform=[0],
            rank_dropout=0.25,
            module_dropout=0.125,
        ),
    ),
    "loha-qwen3": (QWEN3, dict(target_modules=["q_proj", "o_proj"], r=2, alpha=4, init_weights=False)),
    "loha-bert": (BERT_CLASSES, dict(r=3, alpha=3)),
    "lokr-defaults": (LLAMA, dict()),
    "lokr-low-rank": (LLAMA, dict(target_modules="all-linear", r=2, alpha=3)),
    "lokr-decompose-both": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], r=2, alpha=4, decompose_both=True)),
    "lokr-factor": (QWEN3, dict(target_modules=["q_proj", "k_proj", "up_proj"], r=3, alpha=6, decompose_factor=4, init_weights="lycoris")),
    "lokr-patterns": (
        QWEN2,
        dict(
            target_modules=["q_proj", "k_proj", "gate_proj"],
            r=2,
            alpha=2,
            rank_pattern={"k_proj": 6},
            alpha_pattern={"gate_proj": 4},
            rank_dropout=0.25,
            rank_dropout_scale=True,
            module_dropout=0.125,
        ),
    ),
    "lokr-bert": (BERT, dict(r=2, alpha=3, target_modules=["query", "intermediate.dense"])),
    "oft-defaults": (LLAMA, dict()),
    "oft-exact": (LLAMA, dict(target_modules=["q_proj", "down_proj"], oft_block_size=8, use_cayley_neumann=False)),
    "oft-terms": (QWEN3, dict(target_modules=["q_proj", "v_proj"], r=6, oft_block_size=0, num_cayley_neumann_terms=7)),
    "oft-share": (LLAMA, dict(target_modules="all-linear", oft_block_size=4, block_share=True, use_cayley_neumann=False)),
    "oft-constrained": (LLAMA, dict(target_modules=["q_proj", "v_proj"], oft_block_size=4, coft=True, eps=2.0)),
    "oft-biases": (QWEN2, dict(target_modules=["q_proj", "v_proj"], oft_block_size=6, bias="oft_only", num_cayley_neumann_terms=3)),
    "oft-embedding": (QWEN3_UNTIED, dict(target_modules=["embed_tokens", "q_proj"], oft_block_size=4, use_cayley_neumann=False)),
    "oft-bert": (BERT_CLASSES, dict(oft_block_size=4, module_dropout=0.25)),
    "boft-defaults": (LLAMA, dict()),
    "boft-blocks": (QWEN3, dict(target_modules=["k_proj", "up_proj"], boft_block_size=0, boft_block_num=8)),
    "boft-butterfly": (LLAMA, dict(target_modules=["q_proj", "v_proj"], boft_n_butterfly_factor=3, boft_dropout=0.125)),
    "boft-butterfly-down": (LLAMA, dict(target_modules=["down_proj"], boft_block_size=10, boft_n_butterfly_factor=2)),
    "boft-biases": (QWEN2, dict(target_modules=["q_proj", "k_proj"], bias="all", layers_to_transform=[1])),
    "boft-bert": (BERT, dict(bias="boft_only")),
}
# Those whose gradients are compared too.
WITH_GRADIENTS = [
    "loha-defaults",
    "lokr-defaults",
    "lokr-decompose-both",
    "oft-exact",
    "oft-share",
    "oft-terms",
    "oft-constrained",
    "oft-embedding",
    "boft-butterfly",
]


class BlockDiagonal:
    """What PEFT's CUDA kernel computes: [n, blocks, size, size] to [n, blocks * size, blocks * size]."""

    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*factor) for factor in blocks])


boft_layer.FastBlockDiag = BlockDiagonal
boft_layer.get_fbd_cuda = lambda: True


def load(base):
    """The base model as transformers reads it, in f32."""
    kind = AutoModelForSequenceClassification if base == BERT_CLASSES else AutoModel if base == BERT else AutoModelForCausalLM
    return kind.from_pretrained(f"../{base}", dtype=torch.float32, attn_implementation="eager").eval()


def task(base):
    """PEFT's name of what the model is for."""
    return {BERT: "FEATURE_EXTRACTION", BERT_CLASSES: "SEQ_CLS"}.get(base, "CAUSAL_LM")


@torch.no_grad()
def randomise_adapter(model, config, seed):
    """Fills everything that the adapter saves from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "hada_" in name or "lokr_" in name:
            low_rank = 0.9 * noise / (parameter.shape[1] ** 0.5 if name.split(".")[-2].endswith("_b") else 1.0)
            parameter.copy_(low_rank if "hada_" in name else 0.8 * noise / parameter.shape[1] ** 0.5)
        elif "oft_R" in name or "oft_embedding_R" in name:
            # Large enough that a Neumann series of another length gives another answer.
            parameter.copy_(0.25 * noise / (1.0 if config.oft_block_size in (0, 4, 6) else 1.5) if config.peft_type == "OFT" else 0.4 * noise)
        elif "boft_R" in name:
            parameter.copy_(0.4 * noise)
        elif "boft_s" in name:
            parameter.copy_(1.0 + 0.2 * noise)
        elif "lora_magnitude" in name:
            parameter.mul_(1.0 + 0.3 * noise)
        elif "lora_" in name:
            parameter.copy_(noise / parameter.shape[1] ** 0.5)
        elif "modules_to_save" in name:
            parameter.add_(0.15 * noise)
        elif name.endswith("bias") and parameter.requires_grad:
            parameter.add_(0.3 * noise)


def inputs(base, vocab, seed):
    """Token ids; for an encoder right-padded, with their mask."""
    if not base.startswith("encoders"):
        return {"input_ids": random_ids((1, 9), vocab, seed)}
    ids, mask = random_ids((len(LENGTHS), max(LENGTHS)), vocab, seed), torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return {"input_ids": ids * mask, "attention_mask": mask}


def output(model, inputs):
    """Logits, or an encoder's hidden states."""
    out = model(**inputs)
    if hasattr(out, "logits"):
        return out.logits
    return out.last_hidden_state * inputs["attention_mask"].unsqueeze(-1)


def make(name, base, arguments, seed):
    """Saves one adapter and what PEFT computes with it."""
    folder = fresh(OUT / name)
    config = CONFIGS[name.split("-")[0]](task_type=task(base), **arguments)
    made = get_peft_model(load(base), config).eval()
    randomise_adapter(made, config, seed)
    made.save_pretrained(folder)
    (folder / "README.md").unlink()

    given = inputs(base, made.config.vocab_size, seed)
    loaded = PeftModel.from_pretrained(load(base), str(folder), is_trainable=True).eval()
    adapted = output(loaded, given)
    if not torch.equal(adapted, output(made, given)):
        raise SystemExit(f"{name}: the saved adapter computes something else")
    tensors = {**given, "output": adapted}
    if name in WITH_GRADIENTS:
        generator = torch.Generator().manual_seed(seed)
        tensors["weights"] = torch.randn(adapted.shape, generator=generator) / adapted.numel() ** 0.5
        (adapted * tensors["weights"]).sum().backward()
        for key, parameter in loaded.named_parameters():
            if parameter.requires_grad:
                tensors["grad:" + key.replace(".default", "")] = parameter.grad
    with torch.no_grad():
        effect = (adapted - output(load(base), given)).abs().max().item()
        merged = output(loaded.merge_and_unload(), given)
        error = (adapted - merged).abs().max().item()
    if effect < MIN_EFFECT or error > MAX_MERGE_ERROR or not 0.3 < adapted.std().item() < 5.0:
        raise SystemExit(f"{name}: effect {effect}, merge error {error}, deviation {adapted.std().item()}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: effect {effect:.2f}, merge error {error:.1e}, deviation {adapted.std():.2f}, {size / 1000:.1f} kB")
    (folder / "base.txt").write_text(base + "\n")
    save_tensors(folder / "expected.safetensors", tensors)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


class Mlp(torch.nn.Module):
    """A module that is no transformer."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(12, 20)
        self.middle = torch.nn.Linear(20, 18)
        self.outer = torch.nn.Linear(18, 5)

    def forward(self, x):
        return self.outer(self.middle(self.inner(x).tanh()).tanh())


MLPS = {
    "lora": dict(r=2, lora_alpha=4),
    "dora": dict(r=2, lora_alpha=4, use_dora=True),
    "loha": dict(r=3, alpha=6),
    "lokr": dict(r=2, alpha=3),
    "oft": dict(oft_block_size=4, use_cayley_neumann=False),
    "boft": dict(boft_block_size=2, boft_n_butterfly_factor=2),
}


@torch.no_grad()
def make_mlps(seed):
    """Saves adapters of a plain module and what they compute."""
    torch.manual_seed(seed)
    base = Mlp().eval()
    tensors = dict(base.state_dict())
    tensors["x"] = torch.randn(7, 12)
    plain = base(tensors["x"])
    for method, arguments in MLPS.items():
        folder, model = fresh(OUT / f"mlp-{method}"), Mlp().eval()
        model.load_state_dict(base.state_dict())
        config = CONFIGS[method](target_modules=["inner", "middle"], **arguments)
        made = get_peft_model(model, config).eval()
        randomise_adapter(made, config, seed)
        made.save_pretrained(folder)
        (folder / "README.md").unlink()
        (folder / "adapter_model.safetensors").chmod(0o644)
        tensors[method] = made(tensors["x"])
        effect = (tensors[method] - plain).abs().max().item()
        if effect < 0.1:
            raise SystemExit(f"mlp-{method}: effect {effect}")
        print(f"mlp-{method}: effect {effect:.2f}")
    save_tensors(OUT / "mlp.safetensors", tensors)


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    # Bases are loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(MODELS / "llama")
    only = sys.argv[1:]
    for seed, (name, (base, arguments)) in enumerate(VARIANTS.items(), start=400):
        if not only or name in only:
            make(name, base, arguments, seed)
    if not only or "mlp" in only:
        make_mlps(500)


if __name__ == "__main__":
    main()
