"""The peer of the training bench: transformers + PEFT on the CPU, on the same model, adapter, optimizer and batch.

LoRA r 8, alpha 8, no dropout, on all seven projections; AdamW at 1e-4; f32; `--batch` x `--tokens` random ids, all of them trained; no
padding. Threads = cores. Prints one JSON line: tokens_per_s (of the median step), step_seconds_median, peak_rss_mb (MiB, the process's
highest resident memory, Python and the loading of the model included), and what was run.

Run: python benches/peft_peer.py --model DIR --gguf NAME [--steps 5] [--gradient-checkpointing]
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--gguf", help="name of the GGUF file in the folder; without it, safetensors")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--steps", type=int, default=5, help="measured steps")
    parser.add_argument("--warmup", type=int, default=1, help="steps before measuring")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's threads")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="recompute each block in the backward pass")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(options.model, gguf_file=options.gguf, dtype=torch.float32)
    model.config.use_cache = False
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=SEVEN, r=8, lora_alpha=8)).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    seconds, losses = [], []
    for step in range(options.warmup + options.steps):
        ids = torch.randint(0, model.config.vocab_size, (options.batch, options.tokens))
        started = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step >= options.warmup:
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    report = {
        "tokens_per_s": round(options.batch * options.tokens / median, 1),
        "step_seconds_median": round(median, 3),
        "step_seconds": [round(value, 3) for value in seconds],
        "peak_rss_mb": round(peak),
        "gradient_checkpointing": options.gradient_checkpointing,
        "batch": options.batch,
        "tokens": options.tokens,
        "threads": options.threads,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "loss_first": round(losses[0], 4),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
