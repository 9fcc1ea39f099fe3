"""Compares a folder that llmkit converted from a GGUF file with what Python's libraries read from that file, and loads it in transformers.

Run:
  LLMKIT_GGUF=model.gguf LLMKIT_OUT=out cargo test -p llmkit-core --test checkpoint a_given_gguf_file_is_converted -- --ignored
  python scripts/check_converted.py model.gguf out
"""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM


def ours(folder):
    """Every tensor of the folder, by Python's safetensors."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if file.metadata() != {"format": "pt"}:
                raise SystemExit(f"{path}: metadata {file.metadata()}")
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def compare_values(path, tensors):
    """By `gguf` alone: each tensor of the file has the values of one of ours, apart from the order of rows."""
    worst = 0.0
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 200)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, tensor in tensors.items():
        source = theirs.pop(mapping.get_name(name, try_suffixes=(".weight", ".bias")))
        values = gguf.quants.dequantize(source.data, source.tensor_type)
        found = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            values, found = np.sort(values, axis=0), np.sort(found, axis=0)
        worst = max(worst, float(np.abs(values - found).max()))
    if theirs:
        raise SystemExit(f"not converted: {sorted(theirs)}")
    print(f"gguf: {len(tensors)} tensors, largest difference {worst}")


def compare_state(path, tensors, folder):
    """By transformers: the model from the GGUF file and the model from our folder, parameter by parameter, and their logits."""
    options = dict(dtype=torch.float32, attn_implementation="eager")
    reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options).eval()
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    print("loading our folder:", {key: value for key, value in report.items() if value} or "nothing missing, unexpected or mismatched")
    state = reference.state_dict()
    for kind in ["q_proj", "k_proj", ""]:
        names = [name for name in tensors if kind in name]
        worst = max((state[name] - tensors[name]).abs().max().item() for name in names)
        print(f"transformers: {len(names)} tensors with {kind!r} in their name, largest difference {worst}")
    ids = torch.randint(3, reference.config.vocab_size, (1, 12), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        difference = (reference(ids).logits - loaded.eval()(ids).logits).abs().max().item()
    print(f"logits of both models, largest difference {difference}")
    for field, value in loaded.config.to_dict().items():
        if field not in ("_name_or_path", "dtype") and getattr(reference.config, field, None) != value:
            print(f"config {field}: ours {value!r}, transformers' from the GGUF file {getattr(reference.config, field, None)!r}")


def main():
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    tensors = ours(folder)
    compare_values(path, tensors)
    compare_state(path, tensors, folder)


if __name__ == "__main__":
    main()
