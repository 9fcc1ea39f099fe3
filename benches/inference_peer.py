"""The peers of the inference bench: llama.cpp, or transformers on torch, on the same GGUF file, prompt length and number of new tokens.

Loads the model, reads `--prompt` random tokens and generates `--new` more greedily, `--runs` times after one that isn't counted. Prints one
JSON line: load_s, prefill_tokens_per_s, decode_tokens_per_s (medians), peak_rss_mb (MiB, the process's highest resident memory, Python
included).

Run: python benches/inference_peer.py llama.cpp --model MODEL.gguf
     python benches/inference_peer.py torch --model MODEL.gguf
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=["llama.cpp", "torch"])
    parser.add_argument("--model", required=True, type=Path, help="a GGUF file")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens generated after it")
    parser.add_argument("--runs", type=int, default=5, help="measured runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads")
    return parser.parse_args()


class LlamaCpp:
    """llama.cpp through llama-cpp-python."""

    def __init__(self, options):
        import llama_cpp

        self.model = llama_cpp.Llama(
            str(options.model),
            n_ctx=options.prompt + options.new + 1,
            n_batch=512,
            n_threads=options.threads,
            n_threads_batch=options.threads,
            verbose=False,
        )
        self.vocab = self.model.n_vocab()
        self.version = {"llama_cpp_python": llama_cpp.__version__}

    def read(self, prompt):
        self.model.reset()
        self.model.eval(prompt)

    def step(self):
        self.model.eval([int(self.model.sample(temp=0.0))])


class Torch:
    """transformers on torch in f32."""

    def __init__(self, options):
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            options.model.parent, gguf_file=options.model.name, dtype=torch.float32
        ).eval()
        self.vocab = self.model.config.vocab_size
        self.version = {"torch": torch.__version__, "transformers": transformers.__version__}

    def feed(self, ids):
        out = self.model(self.torch.tensor([ids]), past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = out.past_key_values
        self.next = int(out.logits[0, -1].argmax())

    def read(self, prompt):
        self.cache = None
        self.feed(prompt)

    def step(self):
        self.feed([self.next])


def main():
    options = arguments()
    started = time.perf_counter()
    engine = {"llama.cpp": LlamaCpp, "torch": Torch}[options.engine](options)
    load = time.perf_counter() - started
    generator = random.Random(0)
    prompt = [generator.randrange(engine.vocab) for _ in range(options.prompt)]
    prefill, decode = [], []
    for run in range(options.runs + 1):
        started = time.perf_counter()
        engine.read(prompt)
        read = time.perf_counter()
        for _ in range(options.new):
            engine.step()
        if run > 0:
            prefill.append(options.prompt / (read - started))
            decode.append(options.new / (time.perf_counter() - read))
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    report = {
        "engine": options.engine,
        "load_s": round(load, 3),
        "prefill_tokens_per_s": round(statistics.median(prefill), 1),
        "decode_tokens_per_s": round(statistics.median(decode), 1),
        "peak_rss_mb": round(peak),
        "prompt": options.prompt,
        "new": options.new,
        "threads": options.threads,
        "versions": engine.version,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
