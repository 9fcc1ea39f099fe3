"""Records what Python makes of the fixture texts with the real SmolLM2, for the ignored test `smollm2_encodes_as_python_does`.

The original tokenizer cuts off every digit before byte-level words; transformers' own reading of the GGUF file leaves that
step out. So the ids come from `tokenizers` with the original's steps over the vocabulary and merges that transformers read, and
the script reports where transformers' reading differs.

Run: python scripts/check_smollm2_tokenizer.py SmolLM2-135M-Instruct.Q4_1.gguf ids.json
Then: LLMKIT_SMOLLM2_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf LLMKIT_SMOLLM2_IDS=ids.json \\
      cargo nextest run -p llmkit-core --test tokenizer --run-ignored only
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tokenizers import Tokenizer, pre_tokenizers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

TEXTS = Path(__file__).resolve().parent.parent / "llmkit-core/tests/fixtures/tokenizer/texts.json"
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Answer in Chinese."}, {"role": "user", "content": "2 + 2 = ?"}, {"role": "assistant", "content": "四"}, {"role": "user", "content": " and 3?  "}],
]


def main(model, out):
    model = Path(model)
    theirs = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    original = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    original.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    texts = json.loads(TEXTS.read_text(encoding="utf-8"))
    ids = [original.encode(text, add_special_tokens=False).ids for text in texts]
    differing = [text for text, expected in zip(texts, ids) if theirs.encode(text, add_special_tokens=False) != expected]
    print(len(texts), "texts; transformers' reading of the GGUF file differs on", len(differing))
    for text in differing:
        print("  ", repr(text)[:100])
    chats = []
    for messages in CHATS:
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        chats.append({"messages": messages, "text": text, "ids": original.encode(text, add_special_tokens=False).ids})
    Path(out).write_text(json.dumps({"ids": ids, "chats": chats}, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
