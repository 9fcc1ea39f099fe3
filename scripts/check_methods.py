"""Checks every adapter of llmkit-peft's fixtures in both directions: the example `logits` reads the folder, computes, and writes it again; Python loads
what was written and computes too. Exits with 1 if any scores differ by more than the tolerance, a folder can't be read, or nothing was checked.

An adapter is a folder with `adapter_config.json` and a `base.txt` in it or above, which names the base model's folder in
llmkit-core/tests/fixtures (or in `llama` there). Folders of PEFT are loaded with `peft`, those of AdapterHub with `adapters`, which needs an
environment of its own (pip install adapters==1.3.0): each run checks what its environment has, and counts what it leaves to the other.

Run: cargo build --release --example logits && python scripts/check_methods.py [--program target/release/examples/logits] [part of a path ..]
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "llmkit-peft/tests/fixtures"
BASES = ROOT / "llmkit-core/tests/fixtures"
IDS = [5, 9, 30, 7, 7, 41, 12]
# `adapters` needs an older transformers, which PEFT's folders are not for.
LIBRARY = next((library for library in ("adapters", "peft") if importlib.util.find_spec(library)), None)


def adapter_folders(parts):
    """Every adapter's folder with its base's."""
    for config in sorted(FIXTURES.rglob("adapter_config.json")):
        folder = config.parent
        name = next((above / "base.txt" for above in (folder, folder.parent) if (above / "base.txt").exists()), None)
        if name is None or (parts and not any(part in str(folder) for part in parts)):
            continue
        named = name.read_text().strip()
        base = next(path for path in (BASES / named, BASES / "llama" / named) if path.exists())
        yield folder, base.resolve()


def load_base(folder):
    """The model that its configuration names, in f32."""
    config = transformers.AutoConfig.from_pretrained(folder)
    name = config.architectures[0]
    tasks = ["SequenceClassification", "TokenClassification", "MaskedLM", "CausalLM"]
    kind = next((getattr(transformers, "AutoModelFor" + task) for task in tasks if name.endswith("For" + task)), transformers.AutoModel)
    rope = getattr(config, "rope_parameters", None)
    if LIBRARY == "adapters" and rope and "rope_theta" in rope:
        # transformers 5 keeps the rotation's parameters in a field that the version which `adapters` needs does not read.
        config.rope_theta = rope["rope_theta"]
    return kind.from_pretrained(folder, config=config, attn_implementation="eager", torch_dtype=torch.float32).eval()


class BlockDiagonal:
    """[n, blocks, size, size] to [n, blocks * size, blocks * size]."""

    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*factor) for factor in blocks])


class Refused(Exception):
    """Our program says that the folder's head has no place in the base model."""


def with_peft(base, folder):
    """The base with PEFT's adapter; the folder must hold all that it needs."""
    from peft import PeftModel
    from peft.tuners.boft import layer as boft_layer

    # PEFT builds BOFT's butterflies only where it can compile a CUDA kernel; this is what the kernel computes.
    boft_layer.FastBlockDiag = BlockDiagonal
    boft_layer.get_fbd_cuda = lambda: True
    return PeftModel.from_pretrained(load_base(base), str(folder)).eval()


def with_adapters(base, folder):
    """The base with AdapterHub's adapter; the folder must hold all that it needs, and nothing more."""
    import adapters

    head = folder / "head_config.json"
    # A head of the library's own kind, which its own model class has.
    flexible = head.exists() and json.loads(head.read_text())["model_class"].endswith("AdapterModel")
    model = adapters.AutoAdapterModel.from_pretrained(base) if flexible else load_base(base)
    path = folder / "adapter_interface.json"
    interface = adapters.AdapterModelInterface(**json.loads(path.read_text())["interface"]) if path.exists() else None
    adapters.init(model, interface=interface)
    info = {}
    model.load_adapter(str(folder), use_safetensors=True, set_active=True, loading_info=info)
    if info.get("missing_keys") or info.get("unexpected_keys"):
        raise ValueError(f"the folder does not fit: {info}")
    return model.eval()


@torch.no_grad()
def scores(model, ids):
    more = {}
    if getattr(getattr(model, "active_peft_config", None), "peft_type", None) == "MULTITASK_PROMPT_TUNING":
        more["task_ids"] = torch.tensor([0])
    result = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **more)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


def check(program, folder, base, load, work):
    """The largest difference between our scores, theirs with what we wrote, and theirs with what we read."""
    out, written = Path(work) / "logits.safetensors", Path(work) / "adapter"
    ids = ",".join(map(str, IDS))
    command = [program, "--model", base, "--adapter", folder, "--save-adapter", written, "--ids", ids, "--out", out]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if "load_without_head" in run.stderr:
        raise Refused
    if run.returncode != 0:
        raise ValueError(run.stderr.strip().splitlines()[0] if run.stderr.strip() else f"exit {run.returncode}")
    ours = load_file(out)["logits"]
    theirs, original = (scores(load(base, adapter), IDS) for adapter in (written, folder))
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: ours {list(ours.shape)}, theirs {list(theirs.shape)}")
    return max((ours - theirs).abs().max().item(), (ours - original).abs().max().item()), theirs.std().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/examples/logits")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("parts", nargs="*", help="check only folders whose path has one of these in it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    checked, left, refused, failed, worst = 0, 0, 0, [], 0.0
    for folder, base in adapter_folders(options.parts):
        name = folder.relative_to(FIXTURES)
        kind, load = ("peft", with_peft) if "peft_type" in json.loads((folder / "adapter_config.json").read_text()) else ("adapters", with_adapters)
        if kind != LIBRARY:
            left += 1
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                difference, deviation = check(options.program, folder, base, load, work)
                # Written so that a NaN, which compares false, fails too.
                if not difference <= options.tolerance:
                    raise ValueError(f"scores differ by {difference:.2e}")
            except Refused:
                print(f"{name}: refused, as the base model has no place for its head")
                refused += 1
                continue
            except Exception as error:
                failed.append(name)
                print(f"{name}: {type(error).__name__}: {error}")
                continue
        checked, worst = checked + 1, max(worst, difference)
        print(f"{name}: {difference:.1e} (deviation {deviation:.2f})")
    print(f"{checked} adapters agree, the worst by {worst:.1e}; {len(failed)} failed, {refused} were refused; {left} are left to the other environment")
    if failed or not checked:
        sys.exit(1)


if __name__ == "__main__":
    main()
