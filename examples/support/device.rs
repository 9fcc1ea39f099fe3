//! The device that an example runs on.

use llmkit_core::{Device, Result};

/// The device named, else what `LLMKIT_DEVICE` names, else the best there is.
pub(crate) fn choose(named: Option<Device>) -> Result<burn::tensor::Device> {
    named.map_or_else(Device::from_env, Ok)?.resolve()
}
