use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Which backend runs, chosen among those that were built in by the features `cpu`, `wgpu` and `cuda`.
///
/// Parsed from `"auto"`, `"cpu"`, `"wgpu"`, `"cuda"` or `"cuda:1"`.
///
/// ```
/// use llmkit_core::Device;
///
/// let device: Device = "cpu".parse()?;
/// assert_eq!(device, Device::Cpu);
/// # Ok::<(), llmkit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The fastest backend that was built in: CUDA, then wgpu, then the CPU.
    #[default]
    Auto,
    /// burn's flex.
    Cpu,
    /// The best GPU that wgpu finds.
    Wgpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
}

impl Device {
    /// The environment variable that [`Device::from_env`] reads.
    pub const VARIABLE: &'static str = "LLMKIT_DEVICE";

    /// The device that the variable `LLMKIT_DEVICE` names, or [`Device::Auto`] if it isn't set.
    ///
    /// # Errors
    /// [`Error::Device`] if the variable holds something that is no device.
    pub fn from_env() -> Result<Self> {
        match std::env::var(Self::VARIABLE) {
            Ok(name) => name.parse(),
            Err(_) => Ok(Self::Auto),
        }
    }

    /// burn's device, without autodiff.
    ///
    /// # Errors
    /// [`Error::Device`] if the backend was not built in; the message names the missing feature.
    pub fn resolve(self) -> Result<burn::tensor::Device> {
        match self {
            Self::Auto => Ok(Self::best()?.resolve()?),
            Self::Cpu => cpu().ok_or_else(|| self.missing_feature("cpu")),
            Self::Wgpu => wgpu().ok_or_else(|| self.missing_feature("wgpu")),
            Self::Cuda(index) => cuda(index).ok_or_else(|| self.missing_feature("cuda")),
        }
    }

    fn best() -> Result<Self> {
        if cfg!(feature = "cuda") {
            Ok(Self::Cuda(0))
        } else if cfg!(feature = "wgpu") {
            Ok(Self::Wgpu)
        } else if cfg!(feature = "cpu") {
            Ok(Self::Cpu)
        } else {
            Err(Error::Device {
                requested: "auto".into(),
                remedy: "no backend was built in; enable the feature `cpu`, `wgpu` or `cuda`".into(),
            })
        }
    }

    fn missing_feature(self, feature: &str) -> Error {
        Error::Device {
            requested: self.to_string(),
            remedy: format!("this program was built without it; rebuild with `--features {feature}`"),
        }
    }
}

#[cfg(feature = "cpu")]
fn cpu() -> Option<burn::tensor::Device> {
    Some(burn::tensor::Device::flex())
}

#[cfg(not(feature = "cpu"))]
fn cpu() -> Option<burn::tensor::Device> {
    None
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Option<burn::tensor::Device> {
    Some(burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Option<burn::tensor::Device> {
    None
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<burn::tensor::Device> {
    Some(burn::tensor::Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Option<burn::tensor::Device> {
    None
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "wgpu" => return Ok(Self::Wgpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        if let Some(Ok(index)) = name.strip_prefix("cuda:").map(str::parse) {
            return Ok(Self::Cuda(index));
        }
        Err(Error::Device {
            requested: name,
            remedy: "unknown; use `auto`, `cpu`, `wgpu`, `cuda` or `cuda:N`".into(),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for device in [Device::Auto, Device::Cpu, Device::Wgpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!(" CUDA ".parse::<Device>().unwrap(), Device::Cuda(0));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "cuda:x".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("`cuda:x`") && error.contains("`wgpu`"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_was_not_built_in_names_its_feature() {
        let error = Device::Cuda(0).resolve().unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}
