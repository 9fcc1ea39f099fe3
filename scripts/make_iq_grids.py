"""Writes llmkit-core/src/checkpoint/gguf/iq_grids.rs: the codebooks of llama.cpp's IQ types, packed, from PyPI `gguf`.

Run: python scripts/make_iq_grids.py
"""

from pathlib import Path

import numpy as np
from gguf import quants

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "llmkit-core/src/checkpoint/gguf/iq_grids.rs"
PER_LINE = 16

HEADER = """//! The codebooks of the IQ types, written by `scripts/make_iq_grids.py`.
//!
//! An entry packs the indices of its values into a `u16`, the first in the lowest bits: eight of two bits for IQ1 and IQ2, four of four bits
//! for IQ3. What an index stands for is said where the entry is used.
"""


def packed(kind, bits):
    """The entries as u16, checked against the unpacked grid of the library."""
    entries = np.frombuffer(bytes.fromhex(kind.grid_hex.decode()), dtype="<u2")
    kind.init_grid()
    count, values = kind.grid_shape
    shifts = np.arange(values, dtype=np.uint16) * bits
    indices = (entries[:, None] >> shifts) & ((1 << bits) - 1)
    unpacked = np.array(kind.grid_map, dtype=np.float32)[indices]
    if entries.shape != (count,) or not np.array_equal(unpacked, kind.grid.reshape(count, values)):
        raise SystemExit(f"{kind.__name__}: the grid does not unpack")
    return entries


def main():
    """One constant a codebook."""
    text = HEADER
    for kind, bits in [(quants.IQ1_S, 2), (quants.IQ2_XXS, 2), (quants.IQ2_XS, 2), (quants.IQ2_S, 2), (quants.IQ3_XXS, 4), (quants.IQ3_S, 4)]:
        entries = packed(kind, bits)
        text += f"\n#[rustfmt::skip]\npub(super) static {kind.__name__}: [u16; {len(entries)}] = [\n"
        for at in range(0, len(entries), PER_LINE):
            text += "    " + " ".join(f"{entry:#06x}," for entry in entries[at : at + PER_LINE]) + "\n"
        text += "];\n"
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
