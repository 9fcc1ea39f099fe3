"""Writes llmkit-peft/tests/fixtures/train: what torch computes when it trains a fixed LoRA on the base `gqa-tied`.

  adapter/               the adapter at the start, as PEFT saves it (all linear layers, r 4, alpha 8, no dropout, B not zero)
  expected.safetensors   input_ids, attention_mask, labels [3, 14] i64 (right-padded, -100 on prompts and padding);
                         grad.KEY  the gradient of every A and B at the start, before clipping, f32, KEY as in the adapter's file
                         after.KEY the adapter after the last step
  expected.json          loss, grad_norm at the start; losses, grad_norms (before clipping) and lrs of every step; the optimizer's settings;
                         trained_tokens; f64_deviation: how far the same run in f64 ends up (largest difference of the after.* tensors)

The loss is the mean over trained tokens of the whole batch, the label of a position being the next token. The schedule starts at 0, so the first step
changes nothing but AdamW's moments.

Run: python scripts/make_training_fixtures.py (after make_llama_fixtures.py)
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import torch

from tiny_models import LLAMA_DIR, PEFT_DIR, fresh, load, random_ids, save_tensors, write_json
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import get_cosine_schedule_with_warmup

OUT = PEFT_DIR / "train"
BASE = "gqa-tied"
# (prompt, answer) lengths of each row; the rest of the 14 positions is padding.
ROWS = [(4, 10), (3, 6), (6, 2)]
LENGTH, PAD, STEPS = 14, 0, 5
SETTINGS = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_norm": 1.0, "warmup_steps": 2, "total_steps": 10, "steps": STEPS}


def batch():
    """The padded batch with its labels."""
    ids = random_ids((len(ROWS), LENGTH), 101, 41)
    mask, labels = torch.ones_like(ids), ids.clone()
    for row, (prompt, answer) in enumerate(ROWS):
        ids[row, prompt + answer :] = PAD
        mask[row, prompt + answer :] = 0
        labels[row, :prompt] = -100
        labels[row, prompt + answer :] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def save_start():
    """Saves the adapter that training starts from."""
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4, lora_alpha=8)
    model, generator = get_peft_model(load(BASE), config), torch.Generator().manual_seed(40)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            scale = 1.0 if "lora_A" in name else 0.2
            with torch.no_grad():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    folder = OUT / "adapter"
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    (folder / "adapter_model.safetensors").chmod(0o644)


def train(dtype):
    """Trains from the saved adapter; everything that the fixture records, as a dictionary."""
    model = PeftModel.from_pretrained(load(BASE, dtype=dtype), str(OUT / "adapter"), is_trainable=True).to(dtype).train()
    trained = {name.replace(".default", ""): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if any(("lora_A" in name) == ("lora_B" in name) for name in trained):
        raise SystemExit("something other than A and B is trained")
    optimizer = torch.optim.AdamW(
        trained.values(), lr=SETTINGS["lr"], betas=SETTINGS["betas"], eps=SETTINGS["eps"], weight_decay=SETTINGS["weight_decay"]
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, SETTINGS["warmup_steps"], SETTINGS["total_steps"])
    data, run = batch(), {"losses": [], "grad_norms": [], "lrs": []}
    for step in range(STEPS):
        loss = model(**data).loss
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            run["grads"] = {name: parameter.grad.clone() for name, parameter in trained.items()}
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), SETTINGS["max_norm"])
        run["losses"].append(loss.item())
        run["grad_norms"].append(norm.item())
        run["lrs"].append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    run["after"] = {name: parameter.detach().clone() for name, parameter in trained.items()}
    if set(run["after"]) != set(get_peft_model_state_dict(model)):
        raise SystemExit("the keys are not those of the adapter's file")
    return run


def main():
    torch.set_num_threads(1)
    # The base is loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(LLAMA_DIR)
    fresh(OUT)
    save_start()
    run, precise = train(torch.float32), train(torch.float64)
    deviation = max((run["after"][name] - precise["after"][name]).abs().max().item() for name in run["after"])
    gradient_deviation = max((run["grads"][name] - precise["grads"][name]).abs().max().item() for name in run["grads"])
    if min(run["grad_norms"]) <= SETTINGS["max_norm"] or deviation > 1e-3 or min(g.abs().max() for g in run["grads"].values()) < 1e-4:
        raise SystemExit(f"a poor fixture: norms {run['grad_norms']}, deviation {deviation}")
    tensors = dict(batch())
    tensors |= {f"grad.{name}": value for name, value in run["grads"].items()}
    tensors |= {f"after.{name}": value for name, value in run["after"].items()}
    save_tensors(OUT / "expected.safetensors", tensors)
    value = {name: run[name] for name in ("losses", "grad_norms", "lrs")}
    value |= {"loss": run["losses"][0], "grad_norm": run["grad_norms"][0], "optimizer": SETTINGS}
    value |= {"trained_tokens": int((batch()["labels"][:, 1:] != -100).sum()), "f64_deviation": deviation, "f64_gradient_deviation": gradient_deviation}
    write_json(OUT / "expected.json", value)
    print(value)


if __name__ == "__main__":
    main()
