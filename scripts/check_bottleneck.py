"""Loads a bottleneck adapter that llmkit wrote with AdapterHub's `adapters`, and compares scores; exits with 1 when they differ by more than the tolerance.

For a classifier, the texts are those of a JSONL file, and our scores what the example `classify` wrote with --scores; for a language model they are token
ids, and our scores what the example `logits` wrote.

`adapters` 1.3 needs transformers 4.57, so this script has an environment of its own: pip install adapters==1.3.0 (and torch).

Run: python scripts/check_bottleneck.py --model DIR --adapter DIR --ours FILE.safetensors (--texts FILE.jsonl | --ids 1,2,3) [--tolerance 1e-3]
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import adapters  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402


def load(options):
    """The base model with the adapter active, in f32; every key of the folder must be used."""
    config = AutoConfig.from_pretrained(options.model)
    kind = AutoModelForCausalLM
    rope = getattr(config, "rope_parameters", None)
    if rope:
        # transformers 5 keeps the rotation's parameters in a field that 4.57 does not read.
        config.rope_theta = rope["rope_theta"]
    if options.texts:
        kind = AutoModelForSequenceClassification
        head = json.loads((Path(options.adapter) / "head_config.json").read_text())
        config.label2id = head["label2id"]
        config.id2label = {index: label for label, index in head["label2id"].items()}
    model = kind.from_pretrained(options.model, config=config, attn_implementation="eager", torch_dtype=torch.float32)
    interface = Path(options.adapter) / "adapter_interface.json"
    adapters.init(model, interface=adapters.AdapterModelInterface(**json.loads(interface.read_text())["interface"]) if interface.exists() else None)
    info = {}
    model.load_adapter(options.adapter, use_safetensors=True, set_active=True, loading_info=info)
    if info.get("missing_keys") or info.get("unexpected_keys"):
        sys.exit(f"the folder does not fit: {info}")
    return model.eval()


@torch.no_grad()
def scores(model, options):
    if options.ids:
        return model(torch.tensor([[int(id) for id in options.ids.split(",")]])).logits
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = [json.loads(line)["text"] for line in Path(options.texts).read_text().splitlines()]
    return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--ours", required=True)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--texts")
    inputs.add_argument("--ids")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    options = parser.parse_args()
    ours, model = load_file(options.ours)["logits"], load(options)
    theirs = scores(model, options)
    if ours.shape != theirs.shape:
        sys.exit(f"shapes differ: ours {list(ours.shape)}, theirs {list(theirs.shape)}")
    worst = (ours - theirs).abs().max().item()
    agree = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    print(f"max difference {worst:.3e} (their deviation {theirs.std():.3f}), same argmax {agree:.1%}")
    if options.texts:
        labels = [json.loads(line)["label"] for line in Path(options.texts).read_text().splitlines()]
        right = sum(model.config.label2id[label] == row for label, row in zip(labels, theirs.argmax(-1).tolist()))
        print(f"{right / len(labels):.1%} of {len(labels)} right in Python")
    # Written so that a NaN, which compares false, fails too.
    if not worst <= options.tolerance:
        sys.exit(1)


if __name__ == "__main__":
    main()
