"""Writes llmkit-peft/tests/fixtures/bottleneck: bottleneck adapters as AdapterHub's `adapters` saves them, and what it computes with them.

Each folder is what `save_adapter(.., use_safetensors=True)` wrote, with random weights everywhere, plus:
  base.txt              the folder of the base model in llmkit-core/tests/fixtures
  expected.safetensors  input_ids [rows, seq] i64; for encoders lengths [rows] i64 and token_type_ids where the model knows types;
                        hidden or logits f32 with the adapter active; zeros behind each row's length
`activations.safetensors` holds `x` and, for each non-linearity, its values at `x`; `configs.json` what AdapterHub's named configurations are.

`adapters` 1.3 needs transformers 4.57, so this script has an environment of its own: pip install adapters==1.3.0 (and torch).

Run: python scripts/make_peft_bottleneck_fixtures.py [name ..]
"""

import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import adapters
import torch
from adapters import AdapterModelInterface, AdapterPlusConfig, BertAdapterModel, CompacterConfig, CompacterPlusPlusConfig, DoubleSeqBnConfig, ParBnConfig, RobertaAdapterModel, SeqBnConfig
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.activations import get_activation

from tiny_models import PEFT_DIR, ROOT, check_logits_scale, fresh, random_ids, save_tensors, write_json

BASES = ROOT / "llmkit-core/tests/fixtures"
OUT = PEFT_DIR / "bottleneck"
# An adapter that hardly moves the output would let a wrong scale pass.
MIN_EFFECT = 0.1

SEQUENCE, CAUSAL = AutoModelForSequenceClassification, AutoModelForCausalLM

# A decoder that `adapters` has no class for is described to it; this description gives the sites of its Llama.
INTERFACE = AdapterModelInterface(
    adapter_methods=["bottleneck"],
    model_embeddings="embed_tokens",
    model_layers="layers",
    layer_self_attn="self_attn",
    layer_cross_attn=None,
    attn_k_proj="k_proj",
    attn_q_proj="q_proj",
    attn_v_proj="v_proj",
    attn_o_proj="o_proj",
    layer_intermediate_proj="mlp.up_proj",
    layer_output_proj="mlp.down_proj",
    layer_pre_self_attn="input_layernorm",
    layer_pre_ffn="post_attention_layernorm",
)

# name -> (base, class, configuration, prediction head of an AdapterModel or None)
VARIANTS = {
    "bert-houlsby-head": ("encoders/bert-sequence", SEQUENCE, DoubleSeqBnConfig(reduction_factor=4), None),
    "bert-pfeiffer-flex": ("encoders/bert-sequence", BertAdapterModel, SeqBnConfig(reduction_factor=6), dict(layers=1, use_pooler=True)),
    "bert-parallel": ("encoders/bert", AutoModel, ParBnConfig(), None),
    "bert-parallel-attention": ("encoders/bert", AutoModel, ParBnConfig(mh_adapter=True, reduction_factor=8, scaling="channel", ln_after=True), None),
    "bert-residual-after-ln": ("encoders/bert", AutoModel, SeqBnConfig(residual_before_ln=False, scaling=0.5, reduction_factor={"1": 3, "default": 8}), None),
    "bert-post-add": ("encoders/bert", AutoModel, SeqBnConfig(residual_before_ln="post_add", original_ln_after=False, mh_adapter=True, leave_out=[0]), None),
    "bert-ln-after": ("encoders/bert", AutoModel, DoubleSeqBnConfig(ln_after=True, scaling="learned", non_linearity="gelu"), None),
    "bert-ln-after-residual": ("encoders/bert", AutoModel, DoubleSeqBnConfig(ln_after=True, adapter_residual_before_ln=True, reduction_factor=0.5), None),
    "bert-ln-before": ("encoders/bert", AutoModel, SeqBnConfig(ln_before=True, reduction_factor=6), None),
    "bert-adapter-plus": ("encoders/bert", AutoModel, AdapterPlusConfig(reduction_factor=6, stochastic_depth=0.0), None),
    "bert-both-ln": ("encoders/bert", AutoModel, DoubleSeqBnConfig(original_ln_before=True, non_linearity="tanh"), None),
    "roberta-houlsby": ("encoders/roberta", AutoModel, DoubleSeqBnConfig(reduction_factor=8), None),
    "roberta-pfeiffer": ("encoders/roberta", AutoModel, SeqBnConfig(reduction_factor=4), None),
    "roberta-parallel": ("encoders/roberta", AutoModel, ParBnConfig(reduction_factor=4), None),
    "roberta-flex": ("encoders/roberta", RobertaAdapterModel, SeqBnConfig(reduction_factor=4), dict(layers=2, use_pooler=False)),
    "xlm-roberta-head": ("encoders/xlm-roberta-sequence", SEQUENCE, DoubleSeqBnConfig(reduction_factor=8), None),
    "distilbert-houlsby-head": ("encoders/distilbert-sequence", SEQUENCE, DoubleSeqBnConfig(reduction_factor=8), None),
    "distilbert-pfeiffer": ("encoders/distilbert", AutoModel, SeqBnConfig(reduction_factor=8, mh_adapter=True), None),
    "llama-houlsby": ("llama/gqa-tied", CAUSAL, DoubleSeqBnConfig(), None),
    "llama-pfeiffer": ("llama/gqa-tied", CAUSAL, SeqBnConfig(reduction_factor=12), None),
    "llama-parallel": ("llama/gqa-tied", CAUSAL, ParBnConfig(reduction_factor=8), None),
    "mistral-parallel": ("llama/mistral", CAUSAL, ParBnConfig(mh_adapter=True, reduction_factor=16, scaling="learned"), None),
    "qwen3-houlsby": ("decoders/qwen3", CAUSAL, DoubleSeqBnConfig(original_ln_after=True, reduction_factor=12), None),
    "gating": ("encoders/bert", AutoModel, SeqBnConfig(use_gating=True, reduction_factor=6), None),
    "bert-compacter": ("encoders/bert-sequence", SEQUENCE, CompacterConfig(reduction_factor=3), None),
    "bert-compacter-plain": ("encoders/bert", AutoModel, CompacterConfig(reduction_factor=3, factorized_phm_W=False, shared_phm_rule=False, phm_dim=2, phm_bias=False), None),
    "bert-compacter-factorized": ("encoders/bert-sequence", SEQUENCE, CompacterPlusPlusConfig(reduction_factor=3, phm_rank=2, factorized_phm_rule=True, shared_W_phm=True), None),
    "llama-compacter": ("llama/gqa-tied", CAUSAL, CompacterPlusPlusConfig(reduction_factor=6, shared_phm_rule=False, factorized_phm_rule=True), None),
}

NON_LINEARITIES = [
    "relu", "relu2", "relu6", "gelu", "gelu_10", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh", "gelu_accurate", "gelu_fast",
    "quick_gelu", "silu", "swish", "leaky_relu", "leakyrelu", "tanh", "sigmoid", "linear", "mish", "laplace",
]  # fmt: skip


def load(base, kind):
    """The base model as `adapters` runs it, in f32."""
    config = AutoConfig.from_pretrained(base)
    # transformers 5 keeps the rotation's parameters in a field that 4.57 does not read.
    rope = getattr(config, "rope_parameters", None)
    if rope:
        config.rope_theta = rope["rope_theta"]
        if rope["rope_type"] != "default":
            raise SystemExit(f"{base}: {rope}")
    model = kind.from_pretrained(base, config=config, attn_implementation="eager", torch_dtype=torch.float32)
    if not isinstance(model, (BertAdapterModel, RobertaAdapterModel)):
        adapters.init(model, interface=INTERFACE if "qwen" in base else None)
    return model.eval()


def inputs(config, kind, seed):
    """A padded batch for an encoder, an even one for a decoder."""
    if kind is CAUSAL:
        return {"input_ids": random_ids((2, 9), config.vocab_size, seed)}
    lengths = [11, 6]
    ids = random_ids((2, 11), config.vocab_size, seed)
    mask = torch.tensor([[int(place < length) for place in range(11)] for length in lengths])
    batch = {"input_ids": torch.where(mask == 1, ids, config.pad_token_id), "attention_mask": mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        batch["token_type_ids"] = mask * (torch.arange(11) > 3)
    return batch


def result(model, batch):
    """The named output, with zeros behind each row's length."""
    output = model(**batch)
    if "logits" in output:
        return "logits", output.logits
    hidden = output.last_hidden_state
    return "hidden", hidden * batch["attention_mask"][..., None] if "attention_mask" in batch else hidden


@torch.no_grad()
def randomise_adapter(model, name, seed):
    """Fills everything that is saved with the adapter from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "heads." in key or not key.startswith(model.base_model_prefix) and "classifier" in key:
            parameter.add_(0.4 * noise)
        elif name not in key.split("."):
            continue
        elif "phm_rule" in key:
            parameter.copy_(0.7 * noise)
        elif "W_" in key or key.endswith(".W"):
            parameter.copy_(0.6 * noise)
        elif "norm" in key and key.endswith("weight") or key.endswith("scaling"):
            parameter.copy_(0.8 + 0.2 * noise)
        elif parameter.dim() == 2:
            parameter.copy_(1.2 * noise / parameter.shape[1] ** 0.5)
        else:
            parameter.copy_(0.3 * noise)


@torch.no_grad()
def make(name, base, kind, config, head, seed):
    """Saves one adapter and what `adapters` computes with it."""
    folder = fresh(OUT / name)
    # A dot is torch's own separator, so a name has none; it may be any other text.
    adapter = "my-task" if name.startswith("bert") else "task"
    made = load(base, kind)
    made.add_adapter(adapter, config=config)
    if head:
        labels = {0: "cold", 1: "warm", 2: "hot"}
        made.add_classification_head(adapter, num_labels=3, id2label=labels, overwrite_ok=True, **head)
    made.set_active_adapters(adapter)
    randomise_adapter(made, adapter, seed)
    if config.ln_before:
        # The same norm stands under two names, which safetensors' own function refuses to write.
        made.save_adapter(folder, adapter)
        state = torch.load(folder / "pytorch_adapter.bin", weights_only=True)
        save_tensors(folder / "adapter.safetensors", {key: tensor.clone() for key, tensor in state.items()})
        (folder / "pytorch_adapter.bin").unlink()
    elif kind is CAUSAL:
        # The head of a language model is the base's own.
        made.save_adapter(folder, adapter, with_head=False, use_safetensors=True)
    else:
        made.save_adapter(folder, adapter, use_safetensors=True)

    batch = inputs(made.config, kind, seed)
    loaded = load(base, kind)
    info = {}
    loaded.load_adapter(str(folder), use_safetensors=True, set_active=True, loading_info=info)
    if info.get("missing_keys") or info.get("unexpected_keys"):
        raise SystemExit(f"{name}: {info}")
    key, output = result(loaded, batch)
    if not torch.equal(output, result(made, batch)[1]):
        raise SystemExit(f"{name}: the saved adapter computes something else")
    loaded.set_active_adapters(None)
    plain = load(base, kind)
    if head:
        plain.set_active_adapters(None)
    if key == "logits" and kind is CAUSAL:
        check_logits_scale(output)
        expected = load_file(f"{base}/expected.safetensors")
        with torch.no_grad():
            difference = (plain(expected["input_ids"]).logits - expected["logits"]).abs().max().item()
        if difference > 1e-4:
            raise SystemExit(f"{name}: transformers 4.57 and 5 disagree about the base by {difference}")
    effect = (output - result(loaded, batch)[1]).abs().max().item()
    if effect < MIN_EFFECT or not torch.isfinite(output).all():
        raise SystemExit(f"{name}: effect {effect}")
    tensors = {"input_ids": batch["input_ids"], key: output}
    if "attention_mask" in batch:
        tensors["lengths"] = batch["attention_mask"].sum(1)
    if "token_type_ids" in batch:
        tensors["token_type_ids"] = batch["token_type_ids"]
    (folder / "base.txt").write_text(base + "\n")
    save_tensors(folder / "expected.safetensors", tensors)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"{name}: effect {effect:.2f}, {sum(file.stat().st_size for file in folder.iterdir()) // 1024} KiB: {sorted(file.name for file in folder.iterdir())}")


def activations():
    """Every non-linearity at the same places."""
    x = torch.cat([torch.linspace(-12, 12, 49), torch.tensor([-3.01, -0.3, -1e-3, 1e-3, 0.3, 2.99])])
    values = {"x": x}
    for name in NON_LINEARITIES:
        values[name] = (torch.nn.functional.leaky_relu(x) if name == "leakyrelu" else get_activation(name)(x)).clone()
    save_tensors(OUT / "activations.safetensors", values)


def configs():
    """The fields of every named configuration."""
    named = {
        "houlsby": DoubleSeqBnConfig(),
        "pfeiffer": SeqBnConfig(),
        "parallel": ParBnConfig(),
        "adapter_plus": AdapterPlusConfig(),
        "compacter": CompacterConfig(),
        "compacter_plus_plus": CompacterPlusPlusConfig(),
    }
    write_json(OUT / "configs.json", {name: config.to_dict() for name, config in named.items()})


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    # Bases are loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(BASES)
    for seed, (name, variant) in enumerate(VARIANTS.items(), start=300):
        if name in sys.argv[1:] or len(sys.argv) == 1:
            make(name, *variant, seed)
    activations()
    configs()


if __name__ == "__main__":
    main()
