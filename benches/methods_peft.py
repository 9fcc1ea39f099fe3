"""The peer of `methods.rs`: PEFT's methods on the CPU, on the same model, ids, batch, settings and optimizer.

Trains a fixed batch for a few steps and prints one JSON line: step_seconds_median, peak_rss_mb (MiB, the process's highest resident memory,
Python and the loading of the model included), trained_parameters, file_bytes, losses.

`--batch` is the file that `methods.rs` writes: {"input_ids": [[..]], "labels": [[..]] or [..]}, rows of equal length.

Run: python benches/methods_peft.py --task generation --method lora --model DIR --batch FILE [--steps 4] [--threads 2]
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import peft
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIX = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
PROMPT = 20


def configs(task, total_steps):
    """The methods by name, with the settings of `methods.rs`."""
    generation = task == "generation"
    kind = dict(task_type="CAUSAL_LM" if generation else "SEQ_CLS")
    every = dict(kind, target_modules=SEVEN if generation else SIX)
    # PEFT's choice for BERT; it means attention's `output.dense` as well.
    ia3 = ["k_proj", "v_proj", "down_proj"] if generation else ["key", "value", "output.dense"]
    feedforward = ["down_proj"] if generation else ["output.dense"]
    norms = ["input_layernorm", "post_attention_layernorm", "norm"] if generation else ["LayerNorm"]
    return {
        "lora": lambda: peft.LoraConfig(**every, r=8, lora_alpha=16),
        "rslora": lambda: peft.LoraConfig(**every, r=32, lora_alpha=16, use_rslora=True),
        "dora": lambda: peft.LoraConfig(**every, r=8, lora_alpha=16, use_dora=True),
        "pissa": lambda: peft.LoraConfig(**every, r=8, lora_alpha=8, init_lora_weights="pissa_niter_4"),
        "adalora": lambda: peft.AdaLoraConfig(
            **every, init_r=12, target_r=8, lora_alpha=32, tinit=total_steps // 5, tfinal=total_steps // 5, deltaT=2, total_step=total_steps
        ),
        "vera": lambda: peft.VeraConfig(**every, r=256),
        "loha": lambda: peft.LoHaConfig(**every, r=8, alpha=16),
        "lokr": lambda: peft.LoKrConfig(**every, r=8, alpha=16),
        "oft": lambda: peft.OFTConfig(**every, oft_block_size=32, use_cayley_neumann=True),
        "boft": lambda: peft.BOFTConfig(**every, boft_block_size=8, boft_n_butterfly_factor=1),
        "ia3": lambda: peft.IA3Config(**kind, target_modules=ia3, feedforward_modules=feedforward),
        "ln_tuning": lambda: peft.LNTuningConfig(**kind, target_modules=norms),
        "prompt_tuning": lambda: peft.PromptTuningConfig(**kind, num_virtual_tokens=PROMPT),
        "p_tuning": lambda: peft.PromptEncoderConfig(**kind, num_virtual_tokens=PROMPT, encoder_hidden_size=128),
        "prefix_tuning": lambda: peft.PrefixTuningConfig(**kind, num_virtual_tokens=PROMPT, init_weights="zero"),
    }


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", required=True, choices=["generation", "classification"])
    parser.add_argument("--method", required=True, help="one of PEFT's, `full`, or `head` (the classifier alone)")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--batch", required=True, help="the ids and labels, as methods.rs writes them")
    parser.add_argument("--steps", type=int, default=4, help="measured steps")
    parser.add_argument("--warmup", type=int, default=1, help="steps before measuring")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's threads")
    return parser.parse_args()


def load(options, labels):
    """The model, in f32; BERT's own dropout is off, as ours has none."""
    if options.task == "generation":
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        model.config.use_cache = False
        return model
    return AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=max(labels) + 1, dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with open(options.batch) as file:
        batch = json.load(file)
    known = configs(options.task, options.warmup + options.steps)
    if options.method not in known and options.method not in ("full", "head"):
        print(json.dumps({"method": options.method, "absent": True}))
        return
    model = load(options, batch["labels"])
    if options.method == "head":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith("classifier")
    elif options.method != "full":
        model = peft.get_peft_model(model, known[options.method]())
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    inputs = {"input_ids": torch.tensor(batch["input_ids"]), "labels": torch.tensor(batch["labels"])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])

    seconds, losses = [], []
    for step in range(options.warmup + options.steps):
        started = time.perf_counter()
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if options.method == "adalora":
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
        if step >= options.warmup:
            seconds.append(time.perf_counter() - started)
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".safetensors")]
    report = {
        "method": options.method,
        "step_seconds_median": round(statistics.median(seconds), 4),
        "step_seconds": [round(value, 4) for value in seconds],
        "peak_rss_mb": round(peak),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "file_bytes": sum(sizes),
        "losses": [round(value, 4) for value in losses],
        "versions": {"torch": torch.__version__, "peft": peft.__version__},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
