"""Writes llmkit-core/tests/fixtures/llama/gguf: a tiny tied Llama as a GGUF file, and what transformers reads and computes from it.

`model.gguf` (arch llama, byte-level BPE tokenizer with `pre` smollm, a chat template) mixes F32, F16, BF16, Q8_0, Q4_0 and Q4_1 tensors, with
q and k rows interleaved as llama.cpp stores them. Beside it:
  expected.safetensors  input_ids, logits, prompt_ids, greedy_ids as in the other folders, in f32 from the dequantised weights
  weights.safetensors   a few dequantised weights under their Hugging Face names, to find a wrong block layout or permutation
  tokens.json           texts and their ids by `tokenizers`, and a conversation rendered by transformers

Run: python scripts/make_gguf_fixture.py
"""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tiny_models import LLAMA_DIR, build, expectations, fresh, llama_config, load, save_tensors, write_json  # sets offline mode, so before transformers
from transformers import AutoTokenizer

FOLDER = LLAMA_DIR / "gguf"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The last two never apply: this pre-tokenizer cuts every digit off by itself.
MERGES = (
    "Ġ t|h e|i n|Ġ a|r e|Ġt he|o n|Ġ w|e r|l l|he ll|Ġ o|l o|a n|in g|hell o|Ġw o|r l|Ġwo rl|Ġworl d|d er|Ċ Ċ|an d|Ġa n|Ġan d|Ġ Ġ|u s|us er"
    "|lo w|1 2|Ġ 1"
).split("|")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    "hello world",
    " the low ring and the wonder",
    "Two\n\nlines, 2026 digits: 1234567.",
    "<|im_start|>user\nhello<|im_end|>\n",
    "naïve café — 日本語 🙂",
    "   spaces\tand tabs  ",
    "",
]
MESSAGES = [{"role": "system", "content": "answer and stop"}, {"role": "user", "content": "hello the world"}]

# The storage of each kind of tensor; the ones not named are F16.
STORAGE = {
    "token_embd": Type.Q8_0,
    "attn_q": Type.Q8_0,
    "attn_k": Type.Q4_0,
    "attn_v": Type.F32,
    "attn_output": Type.BF16,
    "ffn_down": Type.Q4_1,
    "ffn_up": Type.Q4_0,
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def vocabulary():
    """The special tokens, the 256 byte characters of byte-level BPE, and one token for each merge."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    return SPECIAL + characters + [merge.replace(" ", "") for merge in MERGES]


def gguf_name(name):
    """`model.layers.0.self_attn.q_proj.weight` -> `blk.0.attn_q.weight`."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{NAMES[module]}.weight"


def interleave(weight, heads):
    """Reorders the rows of each head from halves (Hugging Face) to pairs (GGUF's llama)."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model, path):
    """Writes `model` and the tokenizer to `path`."""
    config, tokens = model.config, vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy().astype(np.float32)
        if "q_proj" in name:
            array = interleave(array, config.num_attention_heads)
        elif "k_proj" in name:
            array = interleave(array, config.num_key_value_heads)
        target = gguf_name(name)
        kind = Type.F32 if array.ndim == 1 else STORAGE.get(target.split(".")[-2], Type.F16)
        writer.add_tensor(target, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_permutation(original, read):
    """Every weight read back is near the one written: the permutation is undone and the blocks are in order."""
    for (name, ours), theirs in zip(original.named_parameters(), read.parameters(), strict=True):
        if (ours - theirs).abs().max() > 0.15 * ours.abs().max():
            raise SystemExit(f"{name} comes back different")


def reference_tokenizer():
    """The tokenizer that the file describes, with the pre-tokenizer of SmolLM's own tokenizer.json.

    transformers 5.23 does not read `tokenizer.ggml.pre` = smollm and merges digits; llama.cpp and the original do not.
    """
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary())}, [tuple(merge.split(" ")) for merge in MERGES]))
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def write_tokens():
    """The ids of a few texts, and a conversation as transformers renders the file's template."""
    tokenizer = reference_tokenizer()
    cases = []
    for text in TEXTS:
        encoding = tokenizer.encode(text)
        if tokenizer.decode(encoding.ids, skip_special_tokens=False) != text:
            raise SystemExit(f"{text!r} does not come back")
        print(f"  {text!r}: {encoding.tokens}")
        cases.append({"text": text, "ids": encoding.ids, "tokens": encoding.tokens})
    theirs = AutoTokenizer.from_pretrained(FOLDER, gguf_file="model.gguf")
    for case in cases:
        same = theirs.encode(case["text"], add_special_tokens=False) == case["ids"]
        if not same and not any(character.isdigit() for character in case["text"]):
            raise SystemExit(f"transformers reads {case['text']!r} differently")
    rendered = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    value = {"texts": cases, "messages": MESSAGES, "rendered": rendered, "rendered_ids": tokenizer.encode(rendered).ids}
    write_json(FOLDER / "tokens.json", value)


def main():
    torch.set_num_threads(1)
    config = llama_config(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
    )
    if len(set(vocabulary())) != len(vocabulary()):
        raise SystemExit("two merges make the same token")
    for seed in range(1, 200):
        original = build(config, seed)
        write_gguf(original, fresh(FOLDER) / "model.gguf")
        model = load(FOLDER, gguf_file="model.gguf")
        check_permutation(original, model)
        expected = expectations(model)
        if expected is not None:
            break
    else:
        raise SystemExit("no seed decodes clearly")
    print(f"gguf: seed {seed}")
    save_tensors(FOLDER / "expected.safetensors", expected)
    weights = dict(model.named_parameters())
    few = ["self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "mlp.up_proj", "self_attn.o_proj", "mlp.gate_proj"]
    save_tensors(FOLDER / "weights.safetensors", {name: weights[name] for name in (f"model.layers.1.{module}.weight" for module in few)})
    write_tokens()


if __name__ == "__main__":
    main()
