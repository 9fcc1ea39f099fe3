"""What the check scripts share: reading a model (and adapter) with transformers and PEFT, in f32, and token ids of the command line."""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()


def parser(doc):
    """The arguments that say which model and which prompt."""
    result = argparse.ArgumentParser(description=doc.split("\n")[0])
    result.add_argument("--model", required=True, help="folder of the model")
    result.add_argument("--gguf", help="name of the GGUF file in the folder; without it, safetensors")
    result.add_argument("--adapter", help="folder of a PEFT adapter")
    result.add_argument("--ids", required=True, type=parse_ids, help="prompt, as 1,2,3; rows of a batch apart by ';'")
    return result


def parse_ids(text):
    """`1,2,3` or `1,2;3,4` -> a tensor [batch, tokens]."""
    try:
        rows = [[int(token) for token in row.split(",")] for row in text.split(";")]
        return torch.tensor(rows)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not ids in rows of one length: {text}") from error


def load(options):
    """The reference model in f32, with its adapter active."""
    model = AutoModelForCausalLM.from_pretrained(options.model, gguf_file=options.gguf, dtype=torch.float32)
    if options.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, options.adapter)
    return model.eval()
