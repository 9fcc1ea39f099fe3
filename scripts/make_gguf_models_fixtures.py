"""Writes llmkit-core/tests/fixtures/gguf: a tiny model of each architecture as a Hugging Face folder and as a GGUF file.

A folder has `config.json` and `model.safetensors` (f16) by transformers, and `model.gguf` by PyPI `gguf`: its name map, its quantisation
(Q8_0; norms, biases and routers F32; rows that are no whole blocks F16), and the metadata and changes of llama.cpp's converter. `llama` also has
`q4_0.gguf` and the tokenizer of make_gguf_fixture.py, as `tokenizer.json` and in the GGUF files.

Run: python scripts/make_gguf_models_fixtures.py
"""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from make_gguf_fixture import CHAT_TEMPLATE, MERGES, SPECIAL, interleave, reference_tokenizer, vocabulary
from tiny_models import ROOT, fresh, randomise  # sets offline mode, so before transformers
import transformers
from safetensors.torch import load_file

FOLDER = ROOT / "llmkit-core/tests/fixtures/gguf"
SMALL = dict(
    vocab_size=72,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
    tie_word_embeddings=False,
)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.05, 1.1, 1.25, 1.5, 1.75],
    "long_factor": [1.0, 1.5, 2.5, 4.0, 6.5, 9.0],
    "partial_rotary_factor": 0.75,
}
YARN = {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 64}
MODELS = {
    "llama": ("llama", "Llama", dict(vocab_size=len(vocabulary()) + 3, max_position_embeddings=65536, rope_parameters=LLAMA3)),
    "mistral": ("llama", "Mistral", dict(sliding_window=None)),
    "mixtral": ("llama", "Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    # Rows of 48 are no whole blocks.
    "qwen2": ("qwen2", "Qwen2", dict(head_dim=None, intermediate_size=48, tie_word_embeddings=True)),
    "qwen3": ("qwen3", "Qwen3", dict(rope_parameters=YARN)),
    "qwen3moe": ("qwen3moe", "Qwen3Moe", dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)),
    "gemma3": ("gemma3", "Gemma3", dict(num_hidden_layers=7, sliding_window=8, query_pre_attn_scalar=16, tie_word_embeddings=True)),
    "phi3": ("phi3", "Phi3", dict(head_dim=None, num_attention_heads=2, num_key_value_heads=1, sliding_window=512, max_position_embeddings=1024, original_max_position_embeddings=256, rope_parameters=LONGROPE)),
}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}


def new_model(kind, changes, seed):
    """A model in f16 whose weights tell one place from another."""
    config = getattr(transformers, CONFIGS.get(kind, f"{kind}Config"))(**{key: value for key, value in {**SMALL, **changes}.items() if value is not None or key == "sliding_window"})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    randomise(model, seed)
    if kind == "Gemma3":
        # Its norms multiply by 1 + weight.
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data -= 1.0
    return model.half()


def parts(tensors, arch, config):
    """llama.cpp's tensors: names, changes, experts in one."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    experts, result = {}, {}
    for name, tensor in tensors.items():
        array = tensor.float().numpy()
        path, kind = name.rsplit(".", 1)
        if ".experts." in path:
            before, after = path.split(".experts.")
            number, weight = after.split(".", 1)
            after = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.get(weight, weight)
            path = f"{before.replace('block_sparse_moe', 'mlp')}.experts.{after}"
            experts.setdefault(f"{names.get_name(path)}.{kind}", {})[int(number)] = array
            continue
        if arch == "llama" and "q_proj" in path:
            array = interleave(array, config.num_attention_heads)
        if arch == "llama" and "k_proj" in path:
            array = interleave(array, config.num_key_value_heads)
        if arch == "gemma3" and name.endswith("norm.weight"):
            array = array + np.float32(1)
        result[f"{names.get_name(path)}.{kind}"] = array
    for name, found in experts.items():
        result[name] = np.stack([found[number] for number in range(len(found))])
    if None in [name.split(".weight")[0] for name in result]:
        raise SystemExit("a tensor without a name")
    return result


def storage(name, array, kind, tied):
    """The type of a tensor."""
    if array.ndim < 2 or "ffn_gate_inp" in name:
        return Type.F32
    if kind == Type.Q4_0 and name == ("token_embd.weight" if tied else "output.weight"):
        kind = Type.Q8_0
    return kind if array.shape[-1] % 32 == 0 else Type.F16


def llama3_factors(rope, head_dim):
    """The divisors as the converter computes them."""
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    low, high = (rope["original_max_position_embeddings"] / rope[key] for key in ("low_freq_factor", "high_freq_factor"))
    factors = []
    for frequency in frequencies.tolist():
        wavelength = 2 * np.pi / frequency
        smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        factors.append(1.0 if wavelength < high else rope["factor"] if wavelength > low else 1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def add_metadata(writer, arch, config):
    """The hyperparameters, as llama.cpp's converter writes them."""
    rope = config.rope_parameters
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    full = rope.get("full_attention", rope)
    writer.add_rope_freq_base(full["rope_theta"])
    if arch == "llama":
        writer.add_rope_dimension_count(head_dim)
    if getattr(config, "num_local_experts", None):
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if arch == "qwen3moe":
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if arch == "phi3":
        original = config.original_max_position_embeddings
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(config.max_position_embeddings / original) / np.log(original))))
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32))
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))


def add_tokenizer(writer, rows):
    """The tokenizer of make_gguf_fixture.py, filled up to the rows of the embedding."""
    tokens = vocabulary()
    fill = rows - len(tokens)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)) + [gguf.TokenType.UNUSED] * fill
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens + [f"[PAD{len(tokens) + i}]" for i in range(fill)])
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(path, arch, config, tensors, kind, tokenizer):
    """One file."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0 if kind == Type.Q4_0 else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_metadata(writer, arch, config)
    if tokenizer:
        add_tokenizer(writer, config.vocab_size)
    else:
        writer.add_tokenizer_model("none")
    for name, array in parts(tensors, arch, config).items():
        stored = storage(name, array, kind, config.tie_word_embeddings)
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    torch.set_num_threads(1)
    for seed, (name, (arch, kind, changes)) in enumerate(MODELS.items()):
        folder = fresh(FOLDER / name)
        model = new_model(kind, changes, seed)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tensors = load_file(folder / "model.safetensors")
        write_gguf(folder / "model.gguf", arch, model.config, tensors, Type.Q8_0, name == "llama")
        if name == "llama":
            write_gguf(folder / "q4_0.gguf", arch, model.config, tensors, Type.Q4_0, True)
            reference_tokenizer().save(str(folder / "tokenizer.json"))
        print(name, len(tensors), "tensors", sum(path.stat().st_size for path in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
