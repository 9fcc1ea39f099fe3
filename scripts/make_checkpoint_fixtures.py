"""Writes llmkit-core/tests/fixtures/checkpoint: what the readers of safetensors and GGUF are tested on.

  quants.gguf, quants.safetensors  blocks of random bytes of every type that is read, and their values by `gguf.quants.dequantize`
  biased.gguf, biased.safetensors  an untied Llama of random weights in f32 with biases and Llama 3's RoPE factors, and the same weights under
                                   their Hugging Face names; transformers reads the one back as the other
  biased.json                      that model's config
  rope_factors.json                divisors of RoPE's frequencies by transformers, for several parameters
  dtypes.safetensors               F32, F16, BF16 and I64 tensors by Python's safetensors, the first three counting up by 0.25 from -3

Run: python scripts/make_checkpoint_fixtures.py
"""

import gguf
import numpy as np
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from make_gguf_fixture import NAMES, interleave
from tiny_models import ROOT, build, fresh, llama_config, load, save_tensors, write_json  # sets offline mode, so before transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FOLDER = ROOT / "llmkit-core/tests/fixtures/checkpoint"
ROWS = 3
# Byte offsets of the half-precision numbers in a block; the other bytes may be anything.
HALVES = {
    Type.Q8_0: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ1_S: [0],
    Type.IQ2_XXS: [0],
    Type.IQ2_XS: [0],
    Type.IQ2_S: [0],
    Type.IQ3_XXS: [0],
    Type.IQ3_S: [0],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.TQ1_0: [52],
    Type.TQ2_0: [64],
    # These three have none: a half spread over four numbers, and scales that are bytes.
    Type.IQ1_M: [],
    Type.MXFP4: [],
    Type.NVFP4: [],
}


def random_blocks(kind, rng):
    """[ROWS, bytes of two blocks] of bytes, with finite numbers where the format has floats."""
    values, size = GGML_QUANT_SIZES[kind]
    if values == 1:
        numbers = rng.normal(size=(ROWS, 64)).astype(np.float32)
        return gguf.quants.quantize(numbers, kind).reshape(ROWS, -1).view(np.uint8)
    blocks = rng.integers(0, 256, size=(ROWS * 2, size), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = rng.normal(size=(ROWS * 2, 1)).astype("<f2").view(np.uint8)
    if kind == Type.IQ1_M:
        # The four bits of each quarter of the half lie at the top of a 16-bit number.
        half = rng.normal(size=(ROWS * 2, 1)).astype("<f2").view("<u2")
        quarters = (half >> np.array([0, 4, 8, 12], dtype=np.uint16)) << 12
        scales = (blocks[:, 48:].copy().view("<u2") & 0x0FFF) | quarters.astype(np.uint16)
        blocks[:, 48:] = scales.view(np.uint8)
    if kind == Type.MXFP4:
        # Both subnormal scales, and others near 1.
        blocks[:, 0] = [0, 1, 2, 126, 127, 130]
    return blocks.reshape(ROWS, -1)


def new_gguf(path, heads, kv_heads):
    """A writer for a Llama with the only metadata that reading tensors needs."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    return writer


def finish(writer):
    """Writes what was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_quants():
    """Every type, under the type's name."""
    rng = np.random.default_rng(11)
    writer, expected = new_gguf(FOLDER / "quants.gguf", 1, 1), {}
    for kind in [Type.F32, Type.F16, Type.BF16, *HALVES]:
        blocks = random_blocks(kind, rng)
        writer.add_tensor(kind.name, blocks if kind not in (Type.F32, Type.F16) else blocks.view({Type.F32: "<f4", Type.F16: "<f2"}[kind]), raw_dtype=kind)
        values = gguf.quants.dequantize(blocks.view("<f4") if kind == Type.F32 else blocks.view("<f2") if kind == Type.F16 else blocks, kind)
        if not np.isfinite(values).all() or np.abs(values).max() == 0:
            raise SystemExit(f"{kind.name}: useless values")
        expected[kind.name] = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    finish(writer)
    save_tensors(FOLDER / "quants.safetensors", expected)


def llama3_factors(config):
    """The divisors of RoPE's frequencies that transformers applies for `config`."""
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    rope, dim = config.rope_parameters, config.head_dim
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    return plain / scaled


def llama3_config(theta, head_dim, factor, low=1.0, high=4.0, original=8192, **changes):
    """A config with Llama 3's scaling."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    return llama_config(head_dim=head_dim, rope_parameters=rope, max_position_embeddings=int(original * factor), **changes)


def write_rope_factors():
    """Llama 3.1 8B, Llama 3.2 1B, and two sets of other parameters."""
    cases = []
    for parameters in [(500000.0, 128, 8.0), (500000.0, 64, 32.0), (500000.0, 64, 8.0, 2.0, 5.0), (10000.0, 64, 4.0, 1.0, 4.0, 1024)]:
        config = llama3_config(*parameters)
        cases.append({"rope": config.rope_parameters, "head_dim": config.head_dim, "max": config.max_position_embeddings, "factors": llama3_factors(config).tolist()})
    write_json(FOLDER / "rope_factors.json", cases)


def write_biased():
    """Biases on every linear, and RoPE factors."""
    config = llama3_config(
        500000.0, 16, 8.0, hidden_size=32, vocab_size=40, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1, attention_bias=True, mlp_bias=True
    )
    model = build(config, 5)
    path = FOLDER / "biased.gguf"
    writer = new_gguf(path, config.num_attention_heads, config.num_key_value_heads)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_token_list([f"t{index}" for index in range(config.vocab_size)])
    writer.add_tokenizer_model("gpt2")
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else None
        if heads:
            array = interleave(array, heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.add_tensor("rope_freqs.weight", llama3_factors(config).numpy().astype(np.float32))
    finish(writer)
    # The config is ours: from GGUF metadata alone, transformers 5.23 makes a Llama without biases.
    theirs = dict(load(FOLDER, gguf_file="biased.gguf", config=config).named_parameters())
    for name, ours in model.named_parameters():
        if not torch.equal(ours, theirs[name]):
            raise SystemExit(f"{name} comes back different")
    save_tensors(FOLDER / "biased.safetensors", dict(model.named_parameters()))
    write_json(FOLDER / "biased.json", config.to_dict())


def gguf_name(name):
    """`model.layers.0.self_attn.q_proj.bias` -> `blk.0.attn_q.bias`."""
    outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in outside:
        return outside[name]
    _, _, layer, module = name.split(".", 3)
    module, kind = module.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write_dtypes():
    """What Python's safetensors writes."""
    count = torch.arange(24).reshape(2, 3, 4) * 0.25 - 3
    save_tensors(
        FOLDER / "dtypes.safetensors",
        {"f32": count, "f16": count.half(), "bf16": count.bfloat16(), "i64": torch.arange(4), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)},
    )


def main():
    torch.set_num_threads(1)
    fresh(FOLDER)
    write_quants()
    write_rope_factors()
    write_dtypes()
    write_biased()


if __name__ == "__main__":
    main()
