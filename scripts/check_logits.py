"""Compares logits of ours with those of transformers (and PEFT) for the same ids; exits with 1 when they differ by more than the tolerance.

The file holds one tensor `logits` (or just one tensor): [batch, tokens, vocab], or [tokens, vocab] for a single row, or only the last position
([batch, vocab]) with --last. The tolerance is on the largest absolute difference.

Run: python scripts/check_logits.py --model DIR [--gguf NAME] [--adapter DIR] --ours FILE.safetensors --ids 1,2,3 --tolerance 1e-3
"""

import sys

import torch
from safetensors.torch import load_file

from reference import load, parser


def read_ours(path):
    """The one tensor of interest, in f32."""
    tensors = load_file(path)
    if "logits" in tensors:
        return tensors["logits"].float()
    if len(tensors) != 1:
        sys.exit(f"{path}: no tensor named logits among {sorted(tensors)}")
    return next(iter(tensors.values())).float()


@torch.no_grad()
def main():
    arguments = parser(__doc__)
    arguments.add_argument("--ours", required=True, help="safetensors file of our logits")
    arguments.add_argument("--tolerance", type=float, default=1e-3, help="largest absolute difference allowed")
    arguments.add_argument("--last", action="store_true", help="ours are of the last position only")
    options = arguments.parse_args()
    theirs = load(options)(options.ids).logits
    if options.last:
        theirs = theirs[:, -1]
    ours = read_ours(options.ours)
    if ours.dim() == theirs.dim() - 1 and theirs.shape[0] == 1:
        ours = ours.unsqueeze(0)
    if ours.shape != theirs.shape:
        sys.exit(f"shapes differ: ours {list(ours.shape)}, theirs {list(theirs.shape)}")
    difference = (ours - theirs).abs()
    worst = difference.max().item()
    agree = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    print(f"max difference {worst:.3e} (mean {difference.mean():.3e}, their deviation {theirs.std():.3f}), same argmax {agree:.1%}")
    # Written so that a NaN, which compares false, fails too.
    if not worst <= options.tolerance:
        sys.exit(1)


if __name__ == "__main__":
    main()
