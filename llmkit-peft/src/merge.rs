use std::sync::Arc;

use llmkit_core::models::Editable;

use crate::{Method, Result};

/// A model of its own with the adapter worked into its weights: it computes the same without the adapter's cost.
///
/// The base stays as it is, so that there is nothing to unmerge; the merged model shares every tensor that the adapter leaves alone.
///
/// # Errors
/// [`Error::NotMergeable`](crate::Error::NotMergeable) for methods that are more than other weights, such as prompts.
pub fn merge<M: Editable + ?Sized>(model: &M, adapter: &dyn Method) -> Result<Arc<M>> {
    let mut failed = None;
    let merged = model.edited(&mut |layer| match adapter.merge_layer(layer) {
        Ok(changed) => changed,
        Err(error) => {
            failed.get_or_insert(error);
            false
        }
    });
    match failed {
        None => Ok(merged),
        Some(error) => Err(error),
    }
}
