"""Compares greedy decoding of ours with that of transformers (and PEFT) for the same prompt ids; exits with 1 at a difference.

The file is a JSON list of new token ids, or an object with such a list under `ids`. As many tokens are generated as the list has, with the end token
disabled. At the first difference the script prints both tokens and how far apart their logits are: a lead near 0 is a tie, not a mistake.

Run: python scripts/check_greedy.py --model DIR [--gguf NAME] [--adapter DIR] --ours FILE.json --ids 1,2,3
"""

import json
import sys

import torch

from reference import load, parser


def read_ours(path):
    """The list of new ids."""
    with open(path) as file:
        value = json.load(file)
    ids = value.get("ids") if isinstance(value, dict) else value
    if not isinstance(ids, list) or not ids or not all(type(token) is int for token in ids):
        sys.exit(f"{path}: not a list of ids")
    return ids


@torch.no_grad()
def main():
    arguments = parser(__doc__)
    arguments.add_argument("--ours", required=True, help="JSON file of our new ids")
    options = arguments.parse_args()
    if options.ids.shape[0] != 1:
        sys.exit("one prompt at a time")
    ours, model = read_ours(options.ours), load(options)
    model.config.eos_token_id = None
    model.generation_config.eos_token_id = None
    # Whatever else a model's generation_config asks for (penalties, say) is not greedy decoding.
    model.generation_config.repetition_penalty = None
    mask = torch.ones_like(options.ids)
    out = model.generate(input_ids=options.ids, attention_mask=mask, max_new_tokens=len(ours), do_sample=False, pad_token_id=0)
    theirs = out[0, options.ids.shape[1] :].tolist()
    if ours == theirs:
        print(f"all {len(ours)} tokens agree")
        return
    step = next((index for index, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    print(f"first difference at token {step} of {len(ours)}: ours {ours[step : step + 1]}, theirs {theirs[step : step + 1]}")
    if step < len(theirs):
        logits = model(torch.cat([options.ids, torch.tensor([theirs[:step]], dtype=torch.long)], dim=1)).logits[0, -1]
        if 0 <= ours[step] < logits.shape[0]:
            print(f"their token leads by {(logits[theirs[step]] - logits[ours[step]]).item():.3e}")
    sys.exit(1)


if __name__ == "__main__":
    main()
