"""Writes llmkit-peft/tests/fixtures/training: what torch computes when it trains BERT with a LoRA to classify.

Each folder is one problem on the base `bert-sequence` (llmkit-core/tests/fixtures/encoders): `classes` (cross-entropy), `values` (squared
error of three numbers) and `several` (binary cross-entropy).
  adapter/               the adapter at the start, as PEFT saves it: LoRA on query and value, and the classifier whole (SEQ_CLS)
  expected.safetensors   input_ids, attention_mask, token_type_ids, [4, 12] i64 (right-padded); labels [4] i64 or [4, 3] f32
                         grad.KEY  the gradient of every trained tensor at the start, before clipping; KEY as in the adapter's file
                         after.KEY the adapter after the last step; logits [4, 3] at the start
  expected.json          losses, grad_norms (before clipping) and lrs of every step; the optimizer's settings; the problem's type
`fresh.json` has, for each kind of encoder, the modules that AutoModelForSequenceClassification adds to it, with shapes and how their
weights are distributed.

The model's own dropout is off. Run: python scripts/make_peft_training_fixtures.py (after make_encoder_fixtures.py)
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModel, AutoModelForSequenceClassification, get_cosine_schedule_with_warmup

from tiny_models import PEFT_DIR, ROOT, fresh, random_ids, save_tensors, write_json

ENCODERS = ROOT / "llmkit-core/tests/fixtures/encoders"
OUT = PEFT_DIR / "training"
BASE = "bert-sequence"
LENGTHS, LENGTH, LABELS, STEPS = [12, 7, 9, 4], 12, 3, 5
SETTINGS = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_norm": 1.0, "warmup_steps": 2, "total_steps": 10, "steps": STEPS}
PROBLEMS = {"classes": "single_label_classification", "values": "regression", "several": "multi_label_classification"}
# The encoders that get a head, and the folder from which each comes.
FRESH = {"bert": "bert", "distilbert": "distilbert", "roberta": "roberta", "modernbert": "modernbert"}


def load(dtype=torch.float32, **changes):
    """The base without dropout."""
    model = AutoModelForSequenceClassification.from_pretrained(
        BASE, dtype=dtype, attn_implementation="eager", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **changes
    )
    return model.eval()


def batch(kind, dtype):
    """The padded batch with its labels."""
    generator = torch.Generator().manual_seed(12)
    ids, mask = random_ids((len(LENGTHS), LENGTH), 61, 51), torch.ones(len(LENGTHS), LENGTH, dtype=torch.long)
    types = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, length:] = 0
        mask[row, length:] = 0
        types[row, length // 2 : length] = 1
    labels = {
        "classes": torch.tensor([2, 0, 1, 2]),
        "values": torch.randn(len(LENGTHS), LABELS, generator=generator),
        "several": torch.randint(0, 2, (len(LENGTHS), LABELS), generator=generator).float(),
    }[kind]
    if labels.is_floating_point():
        labels = labels.to(dtype)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels}


def save_start(folder):
    """Saves the adapter that training starts from."""
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2, lora_alpha=4)
    model, generator = get_peft_model(load(), config), torch.Generator().manual_seed(40)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if "lora_" in name:
                parameter.copy_((1.0 if "lora_A" in name else 0.4) * noise / parameter.shape[1] ** 0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.1 * noise)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    (folder / "adapter_model.safetensors").chmod(0o644)


def train(kind, folder, dtype):
    """Trains from the saved adapter; everything that the fixture records."""
    base = load(dtype, problem_type=PROBLEMS[kind])
    model = PeftModel.from_pretrained(base, str(folder), is_trainable=True).to(dtype).train()
    trained = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained[name.replace(".modules_to_save.default", "").replace(".default", "")] = parameter
    if set(trained) != set(get_peft_model_state_dict(model)):
        raise SystemExit(f"the keys are not those of the adapter's file: {sorted(trained)}")
    optimizer = torch.optim.AdamW(
        trained.values(), lr=SETTINGS["lr"], betas=SETTINGS["betas"], eps=SETTINGS["eps"], weight_decay=SETTINGS["weight_decay"]
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, SETTINGS["warmup_steps"], SETTINGS["total_steps"])
    data, run = batch(kind, dtype), {"losses": [], "grad_norms": [], "lrs": []}
    for step in range(STEPS):
        output = model(**data)
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            run["grads"] = {name: parameter.grad.clone() for name, parameter in trained.items()}
            run["logits"] = output.logits.detach().clone()
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), SETTINGS["max_norm"])
        run["losses"].append(output.loss.item())
        run["grad_norms"].append(norm.item())
        run["lrs"].append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    run["after"] = {name: parameter.detach().clone() for name, parameter in trained.items()}
    return run


def make(kind):
    folder = fresh(OUT / kind)
    save_start(folder / "adapter")
    run, precise = train(kind, folder / "adapter", torch.float32), train(kind, folder / "adapter", torch.float64)
    deviation = max((run["after"][name] - precise["after"][name]).abs().max().item() for name in run["after"])
    smallest = min(gradient.abs().max().item() for gradient in run["grads"].values())
    if deviation > 1e-4 or smallest < 1e-4 or run["losses"][-1] >= run["losses"][0]:
        raise SystemExit(f"{kind}: a poor fixture: {run['losses']}, deviation {deviation}, smallest gradient {smallest}")
    tensors = dict(batch(kind, torch.float32)) | {"logits": run["logits"]}
    tensors |= {f"grad.{name}": value for name, value in run["grads"].items()}
    tensors |= {f"after.{name}": value for name, value in run["after"].items()}
    save_tensors(folder / "expected.safetensors", tensors)
    value = {name: run[name] for name in ("losses", "grad_norms", "lrs")}
    value |= {"optimizer": SETTINGS, "problem_type": PROBLEMS[kind], "f64_deviation": deviation}
    write_json(folder / "expected.json", value)
    print(kind, run["losses"], deviation)


def heads():
    """What is added to each encoder for classification: name -> shape and, of weights, the standard deviation over many drawings."""
    found = {}
    for kind, source in FRESH.items():
        with tempfile.TemporaryDirectory() as folder:
            base = AutoModel.from_pretrained(source, dtype=torch.float32)
            base.save_pretrained(folder)
            before = {f"{name}" for name, _ in base.named_parameters()}
            parameters = {}
            for seed in range(30):
                torch.manual_seed(seed)
                model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5, dtype=torch.float32)
                prefix = model.base_model_prefix + "."
                for name, parameter in model.named_parameters():
                    if name.removeprefix(prefix) not in before or not name.startswith(prefix):
                        parameters.setdefault(name, []).append(parameter.detach())
            config = model.config.to_dict()
            found[kind] = {
                "architectures": [type(model).__name__],
                "id2label": config["id2label"],
                "parameters": {
                    name: {
                        "shape": list(drawn[0].shape),
                        "std": torch.stack(drawn).std().item(),
                        "mean": torch.stack(drawn).mean().item(),
                        "largest": torch.stack(drawn).abs().max().item(),
                    }
                    for name, drawn in parameters.items()
                },
                "paths": sorted(name for name, _ in model.named_parameters()),
            }
    write_json(OUT / "fresh.json", found)


def main():
    torch.set_num_threads(1)
    # The base is loaded by a relative path, since adapter_config.json keeps it.
    os.chdir(ENCODERS)
    fresh(OUT)
    for kind in PROBLEMS:
        make(kind)
    heads()


if __name__ == "__main__":
    main()
