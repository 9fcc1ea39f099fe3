//! Turning logits into text.
