"""Writes llmkit-core/tests/fixtures/decoders: tiny checkpoints of the other decoder-only architectures, and what transformers computes from
them; and rope.json, the frequencies that transformers derives from configurations.

Each folder is as in make_llama_fixtures.py: a Hugging Face model folder (weights in bf16) plus `expected.safetensors`. The models differ in
every option that an architecture has: windows smaller than the sequences, biases, tied heads, scaled rotations, experts. Where
transformers' own decoding with a cache differs from that without one (dynamic NTK leaves keys in the cache as they were rotated),
`cached_ids` holds the former. Every option is checked to matter: without it, transformers gives other logits.

Run: python scripts/make_decoder_fixtures.py
"""

import json

import torch
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tiny_models import (
    MIN_MARGIN,
    ROOT,
    SMALL,
    build,
    check_logits_scale,
    fresh,
    generate,
    greedy,
    load,
    random_ids,
    save_tensors,
    write_json,
)

DIR = ROOT / "llmkit-core/tests/fixtures/decoders"

SIZES = {**SMALL, "vocab_size": 67, "intermediate_size": 40, "pad_token_id": None}
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=24, intermediate_size=40)

# Lengths at which a scaling that depends on the length is asked for.
LENGTHS = (None, 8, 64, 65, 100, 300)


def expectations(model, cached_differs, seed=7):
    """As tiny_models.expectations, with `cached_ids` where a cache makes a difference."""
    vocab = model.config.vocab_size
    input_ids, prompt_ids = random_ids((2, 37), vocab, seed), random_ids((1, 7), vocab, seed + 1)
    # First, since dynamic NTK remembers the longest sequence that it saw.
    with torch.no_grad():
        logits = model(input_ids).logits
    greedy_ids, margin = greedy(model, prompt_ids)
    if margin < MIN_MARGIN or greedy_ids.unique().numel() < 12:
        return None
    cached_ids = generate(model, prompt_ids)
    if torch.equal(cached_ids, greedy_ids) == cached_differs:
        return None
    check_logits_scale(logits)
    expected = {"input_ids": input_ids, "logits": logits, "prompt_ids": prompt_ids, "greedy_ids": greedy_ids}
    return {**expected, "cached_ids": cached_ids} if cached_differs else expected


def matters(folder, expected, without):
    """Insists that each of `without`, changes to the configuration, changes the logits."""
    text = (folder / "config.json").read_text()
    for change in without:
        write_json(folder / "config.json", {**json.loads(text), **change})
        with torch.no_grad():
            logits = load(folder)(expected["input_ids"]).logits
        difference = (logits - expected["logits"]).abs().max().item()
        if difference < 1e-2:
            raise SystemExit(f"{folder.name}: {change} changes the logits by {difference} only")
    (folder / "config.json").write_text(text)


def variant(name, config, without=(), cached_differs=False):
    """Saves the first seed whose greedy decoding is clear, and what transformers computes from the saved files."""
    folder = DIR / name
    print(f"{name}:", flush=True)
    for seed in range(1, 400):
        build(config, seed).to(torch.bfloat16).save_pretrained(fresh(folder))
        expected = expectations(load(folder), cached_differs)
        if expected is not None:
            save_tensors(folder / "expected.safetensors", expected)
            matters(folder, expected, without)
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(f"{name}: seed {seed}, {size} bytes, logits' deviation {expected['logits'].std():.2f}")
            (folder / "generation_config.json").unlink(missing_ok=True)
            return folder, expected
    raise SystemExit(f"{name}: no seed decodes clearly")


def older(folder, expected, change):
    """Rewrites config.json in the fields that transformers 4 wrote, and insists that transformers still gives the same logits."""
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    change(config)
    write_json(folder / "config.json", config)
    with torch.no_grad():
        if not torch.equal(load(folder)(expected["input_ids"]).logits, expected["logits"]):
            raise SystemExit(f"{folder.name}: the older config gives other logits")


def rope(kind, theta=10000.0, **parameters):
    """A `rope_parameters`."""
    return {"rope_type": kind, "rope_theta": theta, **parameters}


def models():
    """One folder for each architecture and way of using it."""
    variant("mistral-window", MistralConfig(**{**SIZES, "sliding_window": 9, "head_dim": 24}), [{"sliding_window": None}])

    # The window begins at block 1; full attention before it.
    folder, expected = variant(
        "qwen2-window",
        Qwen2Config(**{**SIZES, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1, "tie_word_embeddings": True}),
    )
    older(folder, expected, lambda config: config.pop("layer_types"))
    matters(folder, expected, [{"use_sliding_window": False}, {"max_window_layers": 0}])
    yarn = rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=1.0)
    folder, expected = variant("qwen2-yarn", Qwen2Config(**{**SIZES, "rope_parameters": yarn}), [{"rope_parameters": rope("default")}])

    def to_older(config):
        config["rope_theta"] = config["rope_parameters"].pop("rope_theta")
        config["rope_scaling"] = config.pop("rope_parameters")
        config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")
        config["sliding_window"] = 7  # Not in use, as in published checkpoints.

    older(folder, expected, to_older)

    kinds = ["sliding_attention", "full_attention"]
    variant(
        "qwen3",
        Qwen3Config(**{**SIZES, "head_dim": 24, "attention_bias": True, "use_sliding_window": True, "sliding_window": 9, "layer_types": kinds}),
        [{"layer_types": ["full_attention"] * 2}, {"layer_types": ["sliding_attention"] * 2}],
    )
    variant("qwen3-tied", Qwen3Config(**{**SIZES, "head_dim": 16, "tie_word_embeddings": True, "rope_parameters": rope("default", 1e6)}))

    gemma = dict(head_dim=24, query_pre_attn_scalar=16, sliding_window=9, num_hidden_layers=3, tie_word_embeddings=True)
    full, sliding = rope("linear", 1e6, factor=8.0), rope("default", 1e4)
    folder, expected = variant(
        "gemma3",
        Gemma3TextConfig(
            **{
                **SIZES,
                **gemma,
                "pad_token_id": 0,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "rope_parameters": {"full_attention": full, "sliding_attention": sliding},
            }
        ),
        [
            {"layer_types": ["full_attention"] * 3},
            {"query_pre_attn_scalar": 24},
            {"rope_parameters": {"full_attention": sliding, "sliding_attention": sliding}},
            {"rope_parameters": {"full_attention": full, "sliding_attention": full}},
        ],
    )

    def gemma_v4(config):
        parameters = config.pop("rope_parameters")
        config["rope_theta"] = parameters["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        config["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
        config["sliding_window_pattern"] = 2
        del config["layer_types"], config["tie_word_embeddings"]

    # The same weights in the fields of transformers 4, where the pattern is a number and the tied head goes without saying.
    config = (folder / "config.json").read_text()
    older(folder, expected, gemma_v4)
    (folder / "config-v4.json").write_text((folder / "config.json").read_text())
    (folder / "config.json").write_text(config)

    variant(
        "phi3",
        Phi3Config(**{**SIZES, "num_key_value_heads": 3, "sliding_window": 9, "original_max_position_embeddings": 128}),
        [{"sliding_window": None}],
    )
    partial = 0.75
    factors = dict(short_factor=[1.0, 1.1, 1.3, 1.6, 2.0, 2.5], long_factor=[1.0, 1.5, 2.5, 5.0, 9.0, 14.0])
    longrope = rope("longrope", original_max_position_embeddings=32, partial_rotary_factor=partial, **factors)
    folder, expected = variant(
        "phi4-longrope",
        Phi3Config(
            **{
                **SIZES,
                "original_max_position_embeddings": 32,
                "partial_rotary_factor": partial,
                "tie_word_embeddings": True,
                "rope_parameters": longrope,
            }
        ),
        [{"rope_parameters": {**longrope, "short_factor": factors["long_factor"], "long_factor": factors["short_factor"]}}],
    )

    def phi_v4(config):
        del config["rope_parameters"]
        config["rope_theta"] = 10000.0
        config["partial_rotary_factor"] = partial
        config["rope_scaling"] = {"type": "longrope", **factors}

    older(folder, expected, phi_v4)

    dynamic = rope("dynamic", factor=4.0)
    variant(
        "llama-dynamic",
        LlamaConfig(**{**SIZES, "max_position_embeddings": 24, "rope_parameters": dynamic}),
        [{"rope_parameters": rope("default")}],
        cached_differs=True,
    )

    moe = {**SIZES, **EXPERTS, "head_dim": 16, "num_experts": 5, "num_hidden_layers": 2}
    variant(
        "qwen3-moe",
        Qwen3MoeConfig(**{**moe, "norm_topk_prob": True, "mlp_only_layers": [0], "use_sliding_window": True, "sliding_window": 9}),
        [{"norm_topk_prob": False}, {"num_experts_per_tok": 1}, {"use_sliding_window": False}],
    )
    variant(
        "qwen3-moe-sparse-step",
        Qwen3MoeConfig(**{**moe, "norm_topk_prob": False, "decoder_sparse_step": 2, "num_experts": 4}),
        [{"norm_topk_prob": True}],
    )
    variant(
        "mixtral",
        MixtralConfig(**{**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24, "sliding_window": 9}),
        [{"sliding_window": None}, {"num_experts_per_tok": 1}],
    )


def rope_cases():
    """Configurations and what ROPE_INIT_FUNCTIONS makes of them at several lengths."""
    base = dict(hidden_size=96, num_attention_heads=3, head_dim=32, max_position_embeddings=64)
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=48)
    longrope = dict(short_factor=[1 + i / 8 for i in range(16)], long_factor=[1.5 + i for i in range(16)])
    half = dict(short_factor=[1 + i / 8 for i in range(8)], long_factor=[1.5 + i for i in range(8)])
    kinds = [
        rope("linear", factor=4.0),
        rope("linear", 5e5, factor=1.5),
        rope("dynamic", factor=1.0),
        rope("dynamic", factor=4.0),
        rope("dynamic", 1e6, factor=2.0),
        rope("yarn", factor=4.0, original_max_position_embeddings=16),
        rope("yarn", factor=4.0),
        rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=32768, truncate=False),
        rope("yarn", 150000.0, factor=32.0, original_max_position_embeddings=4096, beta_fast=24.0, beta_slow=2.0, truncate=False),
        rope("yarn", factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.707),
        rope("yarn", factor=40.0, original_max_position_embeddings=4096, mscale=0.707),
        rope("yarn", factor=0.5, original_max_position_embeddings=4096),
        rope("yarn", factor=8.0, original_max_position_embeddings=4096, attention_factor=1.25),
        rope("yarn", factor=8.0, original_max_position_embeddings=4096, beta_fast=1.0, beta_slow=1.0),
        rope("llama3", **llama3),
        rope("llama3", 5e5, **{**llama3, "original_max_position_embeddings": 8192}),
        rope("longrope", original_max_position_embeddings=32, **longrope),
        rope("longrope", original_max_position_embeddings=32, factor=8.0, **longrope),
        rope("longrope", original_max_position_embeddings=32, attention_factor=1.5, **longrope),
        rope("longrope", **longrope),
    ]
    cases = []
    for parameters in kinds:
        cases += at_lengths(LlamaConfig, {**base, "rope_parameters": parameters})
    # A field outside of the parameters wins over the one inside.
    outside = rope("llama3", **{**llama3, "original_max_position_embeddings": 16})
    cases += at_lengths(LlamaConfig, {**base, "original_max_position_embeddings": 40, "rope_parameters": outside})
    for parameters in (rope("longrope", partial_rotary_factor=0.5, **half), rope("su", 5e5, partial_rotary_factor=0.5, original_max_position_embeddings=32, **half)):
        fields = {**base, "original_max_position_embeddings": 32, "rope_parameters": parameters}
        cases += at_lengths(Phi3Config, {**fields, "pad_token_id": None})
    return cases


def at_lengths(config_class, fields):
    """One case for each length; only once where the length makes no difference."""
    cases = []
    for length in LENGTHS:
        config = config_class(**json.loads(json.dumps(fields)))
        function = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]]
        inv_freq, attention_factor = function(config, "cpu", seq_len=length)
        result = {"inv_freq": inv_freq.tolist(), "attention_factor": attention_factor}
        if not any(all(case[key] == result[key] for key in result) for case in cases):
            cases.append({"config": fields, "model_type": config.model_type, "length": length or 1, **result})
    return cases


def main():
    torch.set_num_threads(1)
    cases = rope_cases()
    models()
    (DIR / "rope.json").write_text(json.dumps(cases, sort_keys=True) + "\n")
    print(f"rope.json: {len(cases)} cases")


if __name__ == "__main__":
    main()
