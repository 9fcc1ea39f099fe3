use std::path::{Path, PathBuf};

use crate::Result;

/// The folder or file that `name` means: itself where there is such a path, else the folder of the hub's repository of that name
/// (`owner/name`, or `owner/name@revision` for a branch, tag or commit), downloaded where the cache has no copy.
///
/// Without the feature `hub`, every name is a path.
///
/// # Errors
/// [`Error::Hub`](crate::Error::Hub) when the repository can't be had. A path that is missing is reported by what opens it.
pub fn locate(name: &Path) -> Result<PathBuf> {
    #[cfg(feature = "hub")]
    if let Some((repo, revision)) = repository(name) {
        return crate::hub::fetch(repo, revision).map_err(|error| match error {
            crate::Error::Hub { repo, reason } => {
                let reason = format!("there is no such file or folder here, so the hub was asked: {reason}");
                crate::Error::Hub { repo, reason }
            }
            other => other,
        });
    }
    Ok(name.to_path_buf())
}

/// The repository and revision that a path which isn't there may name.
#[cfg(feature = "hub")]
fn repository(name: &Path) -> Option<(&str, Option<&str>)> {
    let text = name.to_str()?;
    let (repo, revision) = match text.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (text, None),
    };
    let [owner, model] = repo.split('/').collect::<Vec<_>>().try_into().ok()?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let named = plain(owner) && plain(model) && !model.ends_with(".gguf");
    (named && !name.exists()).then_some((repo, revision))
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::repository;
    use std::path::Path;

    #[test]
    fn what_could_be_a_repository() {
        let name = |text| repository(Path::new(text));
        assert_eq!(name("Qwen/Qwen3-0.6B"), Some(("Qwen/Qwen3-0.6B", None)));
        assert_eq!(name("Qwen/Qwen3-0.6B@refs/pr/3"), Some(("Qwen/Qwen3-0.6B", Some("refs/pr/3"))));
        for path in [
            "model",
            "a/b/c",
            "/models/qwen",
            "../qwen",
            "models/qwen.gguf",
            "./qwen",
            "src/lib.rs",
            "a\\b/c",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
