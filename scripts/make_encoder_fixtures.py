"""Writes llmkit-core/tests/fixtures/encoders: tiny encoders and what transformers computes from them.

Each folder is a Hugging Face model folder plus `expected.safetensors`:
  input_ids [3, 13] i64, right-padded   lengths [3] i64   token_type_ids [3, 13] i64 where the model knows types
  hidden    [3, 13, hidden] f32, zeros behind each row's length
  pooled    [3, hidden] f32 where the model has a pooler
  logits    [3, 13, vocab], [3, labels] or [3, 13, labels] f32 where it has a head; zeros behind each row's length
`bert-old-names` has the tensor names and buffers of the first BERT checkpoints, and `modernbert/config-v4.json` the fields that
transformers 4 wrote.

Run: python scripts/make_encoder_fixtures.py
"""

import json

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from tiny_models import ROOT, fresh, save_tensors, write_json

FOLDER = ROOT / "llmkit-core/tests/fixtures/encoders"
LENGTHS = [13, 7, 3]
HEADS = {
    "base": AutoModel,
    "mlm": AutoModelForMaskedLM,
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
}
LABELS = {"id2label": {0: "cold", 1: "warm", 2: "hot"}, "label2id": {"cold": 0, "warm": 1, "hot": 2}}

# 3 heads of 8 over hidden 24: no dimension of a weight equals another by accident.
SHAPE = dict(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=32,
    attn_implementation="eager",
)
DISTIL = dict(
    vocab_size=61, dim=24, hidden_dim=40, n_layers=2, n_heads=3, max_position_embeddings=32, attn_implementation="eager"
)
MODERN = dict(
    **SHAPE | {"num_hidden_layers": 4},
    local_attention=4,
    layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    cls_token_id=1,
    sep_token_id=2,
)


def bert(**changes):
    return BertConfig(**{**SHAPE, "type_vocab_size": 2, **changes})


def roberta(kind=RobertaConfig, **changes):
    return kind(**{**SHAPE, "type_vocab_size": 1, "pad_token_id": 1, **changes})


def distilbert(**changes):
    return DistilBertConfig(**{**DISTIL, **changes})


def modernbert(**changes):
    return ModernBertConfig(**{**MODERN, **changes})


def randomise(model, seed):
    """Fills every parameter from `seed`: norms away from 1, biases away from 0, peaked attention."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            value = 0.3 * noise if name.endswith("bias") else 1.0 + 0.25 * noise
        elif "embed" in name:
            value = 0.7 * noise
        else:
            peaked = ("query", "key", "q_lin", "k_lin", "Wqkv")
            value = noise * (1.4 if any(part in name for part in peaked) else 1.0) / parameter.shape[1] ** 0.5
        with torch.no_grad():
            parameter.copy_(value)


def batch(config):
    """Right-padded ids, the mask, and token types where there is more than one."""
    pad = config.pad_token_id
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, config.vocab_size, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    ids = torch.where(mask == 1, ids, pad)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        types = torch.zeros_like(ids)
        for row, length in enumerate(LENGTHS):
            types[row, length // 2 : length] = 1
        inputs["token_type_ids"] = types
    return inputs


@torch.no_grad()
def expectations(model):
    inputs = batch(model.config)
    mask = inputs["attention_mask"]
    base = getattr(model, model.base_model_prefix, model)
    output = base(**inputs)
    hidden = output.last_hidden_state * mask[..., None]
    tensors = {"input_ids": inputs["input_ids"], "lengths": mask.sum(1), "hidden": hidden}
    if "token_type_ids" in inputs:
        tensors["token_type_ids"] = inputs["token_type_ids"]
    if getattr(output, "pooler_output", None) is not None:
        tensors["pooled"] = output.pooler_output
    if base is not model:
        logits = model(**inputs).logits
        tensors["logits"] = logits * mask[..., None] if logits.dim() == 3 else logits
    for name, tensor in tensors.items():
        spread = tensor.float().std().item()
        if not torch.isfinite(tensor.float()).all() or (name in ("hidden", "logits") and spread < 0.1):
            raise SystemExit(f"{name} deviates by {spread}: badly scaled")
    return tensors


def variant(name, config, head="base", seed=1):
    folder = fresh(FOLDER / name)
    model = HEADS[head].from_config(config).float().eval()
    randomise(model, seed)
    # Half precision on disk keeps the fixtures small; everything is computed in f32 from what was stored.
    model.half().save_pretrained(folder)
    model = HEADS[head].from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tensors = expectations(model)
    save_tensors(folder / "expected.safetensors", tensors)
    print(f"{name}: " + ", ".join(f"{key} {list(value.shape)}" for key, value in tensors.items()))
    return folder, tensors


def same(folder, head, tensors, key):
    model = HEADS[head].from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    return torch.allclose(expectations(model)[key], tensors[key], atol=1e-6)


def old_names():
    """As the first BERT checkpoints: gamma and beta, the position buffer, and the next-sentence head beside the masked-LM head."""
    folder, tensors = variant("bert-old-names", bert(hidden_act="gelu_new"), "mlm", seed=5)
    weights = load_file(folder / "model.safetensors")
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in weights.items():
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    renamed["bert.embeddings.position_ids"] = torch.arange(32)[None]
    renamed["cls.seq_relationship.weight"] = torch.ones(2, 24)
    renamed["cls.seq_relationship.bias"] = torch.ones(2)
    save_tensors(folder / "model.safetensors", renamed)
    if not same(folder, "mlm", tensors, "logits"):
        raise SystemExit("the old names give other logits")


def modernbert_v4(folder, tensors):
    """The config in the fields of transformers 4; the published ModernBERT checkpoints have them."""
    newer = (folder / "config.json").read_text()
    config = json.loads(newer)
    rope = config.pop("rope_parameters")
    config["global_rope_theta"] = rope["full_attention"]["rope_theta"]
    config["local_rope_theta"] = rope["sliding_attention"]["rope_theta"]
    if config.pop("layer_types") != ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]:
        raise SystemExit("modernbert: other layers than every third global")
    config["global_attn_every_n_layers"] = 3
    config["torch_dtype"] = config.pop("dtype")
    write_json(folder / "config.json", config)
    if not same(folder, "base", tensors, "hidden"):
        raise SystemExit("modernbert: the older config gives other vectors")
    (folder / "config.json").rename(folder / "config-v4.json")
    (folder / "config.json").write_text(newer)
    for field, value in [("local_attention", 64), ("rope_parameters", {**rope, "sliding_attention": rope["full_attention"]})]:
        write_json(folder / "config.json", {**json.loads(newer), field: value})
        if same(folder, "base", tensors, "hidden"):
            raise SystemExit(f"modernbert: {field} does not matter")
    (folder / "config.json").write_text(newer)


def main():
    torch.set_num_threads(1)
    fresh(FOLDER)
    variant("bert", bert())
    variant("bert-mlm", bert(), "mlm")
    variant("bert-sequence", bert(**LABELS), "sequence")
    variant("bert-token", bert(**LABELS), "token")
    variant("bert-untied", bert(hidden_act="gelu_new", tie_word_embeddings=False), "mlm")
    old_names()
    variant("roberta", roberta())
    variant("roberta-mlm", roberta(), "mlm")
    variant("xlm-roberta-sequence", roberta(XLMRobertaConfig, num_labels=1), "sequence")
    variant("camembert-token", roberta(CamembertConfig, **LABELS), "token")
    variant("distilbert", distilbert())
    variant("distilbert-mlm", distilbert(), "mlm")
    variant("distilbert-sequence", distilbert(**LABELS), "sequence")
    variant("distilbert-token", distilbert(**LABELS), "token")
    modernbert_v4(*variant("modernbert", modernbert(rope_parameters=rope(160000.0, 10000.0))))
    variant("modernbert-mlm", modernbert(), "mlm")
    variant("modernbert-sequence", modernbert(**LABELS, norm_bias=True, classifier_bias=True), "sequence")
    biases = dict(attention_bias=True, mlp_bias=True, classifier_activation="relu")
    variant("modernbert-mean", modernbert(**LABELS, classifier_pooling="mean", **biases), "sequence")
    variant("modernbert-token", modernbert(**LABELS), "token")


def rope(full, sliding):
    return {
        "full_attention": {"rope_theta": full, "rope_type": "default"},
        "sliding_attention": {"rope_theta": sliding, "rope_type": "default"},
    }


if __name__ == "__main__":
    main()
