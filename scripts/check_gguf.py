"""Compares what llama.cpp computes from GGUF files that llmkit wrote with what transformers computes from the folders, and reads the files by
PyPI `gguf`.

Without arguments: every model of llmkit-core/tests/fixtures/gguf in every type, and that llama.cpp tokenizes as the tokenizers of
llmkit-core/tests/fixtures/tokenizer do. With one: that folder.

Run: python scripts/check_gguf.py [folder] (needs PyPI llama-cpp-python)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf  # noqa: E402
import llama_cpp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from tiny_models import build, llama_config  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "llmkit-core/tests/fixtures/gguf"
TOKENIZERS = ROOT / "llmkit-core/tests/fixtures/tokenizer"
# Prompt and context of llama.cpp, in tokens. Phi-3 takes other RoPE factors beyond its original context (256 in the fixture): transformers by
# the length of the text, llama.cpp by that of the context.
LENGTHS = {"phi3": [(48, 256), (300, 512)]}
USUAL = [(48, 256)]
# Largest difference of logits (their deviation is about 2) from transformers on the values that the file holds. llama.cpp multiplies F16 weights
# by activations in f16, and quantised ones by activations in 8 bits, where experts may be chosen differently; its GELU is a table of f16. Its
# caches are f32 here.
TOLERANCE = {"F32": 5e-5, "F16": 0.02, "Q8_0": 0.8, "Q4_0": 0.8}
GELU_TOLERANCE = 0.01
SAME_ARGMAX = 0.9


def write(folder, kind, path):
    """The folder as a GGUF file, by llmkit."""
    environment = dict(os.environ, LLMKIT_MODEL=str(folder), LLMKIT_OUT=str(path), LLMKIT_GGUF_TYPE=kind)
    command = ["cargo", "test", "-q", "--workspace", "--test", "checkpoint", "a_given_folder_is_written_as_gguf", "--", "--ignored"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def llama_cpp_logits(path, ids, context):
    """[tokens, vocab] of one forward pass of llama.cpp."""
    f32 = llama_cpp.GGML_TYPE_F32
    model = llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, logits_all=True, type_k=f32, type_v=f32, flash_attn=False, verbose=False)
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)])
    model.close()
    return logits


def stored_values(path, model, folder):
    """By PyPI `gguf`: the file has the folder's tensors and no other. The largest rounding, of a tensor's largest value."""
    from make_gguf_models_fixtures import parts

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    arch = bytes(gguf.GGUFReader(path).fields["general.architecture"].parts[-1]).decode()
    worst = 0.0
    saved = {}
    from safetensors.torch import load_file

    for file in sorted(folder.glob("*.safetensors")):
        saved.update(load_file(file))
    expected = parts(saved, arch, model.config)
    for name, array in expected.items():
        tensor = tensors.pop(name)
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(array.shape)
        worst = max(worst, float(np.abs(values - array).max() / max(np.abs(array).max(), 1e-9)))
    left = [name for name in tensors if not name.startswith("rope_")]
    if left:
        raise SystemExit(f"{path}: tensors that the folder lacks: {left}")
    return worst


def dequantised(path, folder):
    """The model with the weights of the file, by llmkit's own reader written back as a folder."""
    out = path.with_suffix(".folder")
    environment = dict(os.environ, LLMKIT_GGUF=str(path), LLMKIT_OUT=str(out))
    command = ["cargo", "test", "-q", "--workspace", "--test", "checkpoint", "a_given_gguf_file_is_converted", "--", "--ignored"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    # The folder's own configuration: the one that llmkit derives is compared in the tests.
    (out / "config.json").write_text((folder / "config.json").read_text())
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()


def check(folder, kind, scratch):
    """One model in one type."""
    path = scratch / f"{folder.name}.{kind}.gguf"
    write(folder, kind, path)
    model = dequantised(path, folder)
    rounding = stored_values(path, model, folder)
    tolerance = max(TOLERANCE[kind], GELU_TOLERANCE if hasattr(model.config, "hidden_activation") else 0)
    results = []
    for tokens, context in LENGTHS.get(folder.name, USUAL):
        ids = torch.randint(3, model.config.vocab_size - 4, (1, tokens), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model(ids).logits[0].numpy()
        found = llama_cpp_logits(path, ids[0].tolist(), context)
        difference = float(np.abs(found - expected).max())
        agree = float((found.argmax(-1) == expected.argmax(-1)).mean())
        fine = difference <= tolerance and agree >= SAME_ARGMAX
        print(
            f"{folder.name:10} {kind:5} {tokens:4} tokens: logits differ by {difference:.1e} (deviation {expected.std():.2f}), same argmax {agree:.2f}, "
            f"weights rounded by {rounding:.1e}  {'ok' if fine else 'TOO MUCH'}"
        )
        results.append(fine)
    return all(results)


def check_tokenizer(folder, variant, scratch):
    """A tokenizer, written with a model of its size, cuts the fixtures' texts in llama.cpp as in Python."""
    expected = json.loads((folder / "expected.json").read_text())
    texts = json.loads((folder.parent / "texts.json").read_text())
    target = scratch / folder.name
    config = llama_config(vocab_size=expected["size"], num_hidden_layers=1)
    build(config, 1).save_pretrained(target)
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]:
        if (folder / file).is_file():
            shutil.copy(folder / file, target)
    path = scratch / f"{folder.name}.gguf"
    write(target, "F16", path)
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    wrong = [text for text, ids in zip(texts, expected["variants"][variant], strict=True) if model.tokenize(text.encode(), add_bos=False, special=True) != ids]
    print(f"{folder.name}: {len(texts) - len(wrong)} of {len(texts)} texts cut as by Python's tokenizers", *map(repr, wrong[:5]))
    return not wrong


def main():
    folders = [Path(sys.argv[1])] if len(sys.argv) > 1 else sorted(path for path in MODELS.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as scratch:
        results = [check(folder, kind, Path(scratch)) for folder in folders for kind in TOLERANCE]
        if len(sys.argv) == 1:
            # llama.cpp puts SentencePiece's space before every stretch of text, as transformers does for Phi-3 alone.
            results += [check_tokenizer(TOKENIZERS / kind, variant, Path(scratch)) for kind, variant in [("byte_level", "smollm"), ("sentencepiece", "phi3")]]
    if not all(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
