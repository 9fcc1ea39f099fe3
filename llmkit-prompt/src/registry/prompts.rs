use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::file::{LARGEST, PromptFile};
use super::version;
use crate::template::closest;
use crate::{ChatPrompt, Error, Partials, Result, builtin};

/// The most files that a folder of prompts may hold.
const MOST_FILES: usize = 10_000;
/// The deepest folder in a folder of prompts.
const DEEPEST: usize = 16;

/// The prompts of a folder, with the built-in ones beneath, in all their versions.
///
/// A file `answers/short.md` is the prompt `answers/short`; `answers/short@1.2.0.md` another version of it ([`PromptFile`] describes the files). A file
/// `rules/style.jinja` is a partial that all prompts of the folder may include as `"rules/style"`. A prompt of the folder takes the place of the built-in
/// one of its name. Files with other endings and hidden ones are passed over, links to folders not followed.
///
/// Clones share the prompts: after [`reload`](Self::reload) all of them have the new ones, and who holds a [`ChatPrompt`] keeps it as it was.
///
/// ```
/// use llmkit_prompt::Prompts;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("greet.md"), "---\nversion: 1.0.0\n---\nSay hello.")?;
/// std::fs::write(folder.path().join("greet@2.0.0.md"), "---\n---\nSay good morning.")?;
///
/// let prompts = Prompts::load(folder.path())?;
/// assert_eq!(prompts.get("greet")?.turns().next().unwrap().1, "Say good morning.");
/// assert_eq!(prompts.get_version("greet", "1.0.0")?.turns().next().unwrap().1, "Say hello.");
/// assert!(prompts.get("reasoning/zero_shot_cot").is_ok(), "the built-in prompts are there too");
/// assert!(prompts.get("great").unwrap_err().to_string().contains("did you mean `greet`?"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Prompts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: Option<PathBuf>,
    /// Swapped as a whole, so that no reader sees half a change.
    now: RwLock<Arc<State>>,
    /// One reload at a time.
    reloading: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    partials: Partials,
    /// By path within the folder.
    files: BTreeMap<PathBuf, Arc<PromptFile>>,
    /// All versions of each name, the oldest first.
    prompts: BTreeMap<String, Vec<Arc<PromptFile>>>,
}

/// What [`Prompts::reload`] found.
///
/// ```
/// use llmkit_prompt::Prompts;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("greet.md");
/// std::fs::write(&path, "---\n---\nSay hello.")?;
/// let prompts = Prompts::load(folder.path())?;
///
/// std::fs::write(&path, "---\n---\nSay {{ wrod }}.")?;
/// let reload = prompts.reload()?;
/// assert!(reload.failed[0].to_string().contains("greet.md:3: `wrod` is not declared"));
/// assert_eq!(prompts.get("greet")?.turns().next().unwrap().1, "Say hello.", "the last good one stays");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Reload {
    /// Files that are new.
    pub added: Vec<PathBuf>,
    /// Files whose text, or a partial that they may include, is another.
    pub changed: Vec<PathBuf>,
    /// Files that are gone, and their prompts with them.
    pub removed: Vec<PathBuf>,
    /// What is wrong with files that cannot be used; of those that could be used before, the last good version stays.
    pub failed: Vec<Error>,
}

impl Reload {
    /// Whether nothing is new, gone or broken.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.failed.is_empty()
    }
}

impl Prompts {
    /// The built-in prompts alone.
    pub fn built_in() -> Self {
        let mut state = State::default();
        state.index();
        Self::of(None, state)
    }

    /// The prompts of `folder`.
    ///
    /// # Errors
    /// [`Error::PromptFolder`] with everything that is wrong with its files, [`Error::Io`] if it cannot be read.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let mut reload = Reload::default();
        let state = read(folder, &State::default(), &mut reload)?;
        if !reload.failed.is_empty() {
            return Err(Error::PromptFolder { folder: folder.to_path_buf(), problems: reload.failed });
        }
        Ok(Self::of(Some(folder.to_path_buf()), state))
    }

    fn of(folder: Option<PathBuf>, state: State) -> Self {
        let now = RwLock::new(Arc::new(state));
        Self { shared: Arc::new(Shared { folder, now, reloading: Mutex::new(()) }) }
    }

    /// The newest version of the prompt `name`.
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`] if there is none of this name.
    pub fn get(&self, name: &str) -> Result<ChatPrompt> {
        Ok(self.file(name, None)?.prompt().clone())
    }

    /// The version `version` of the prompt `name`.
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`] if there is none of this name and version.
    pub fn get_version(&self, name: &str, version: &str) -> Result<ChatPrompt> {
        Ok(self.file(name, Some(version))?.prompt().clone())
    }

    /// The file of the prompt `name`: its newest version, or the one asked for.
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`] if there is none of this name and version.
    pub fn file(&self, name: &str, version: Option<&str>) -> Result<Arc<PromptFile>> {
        let state = self.now();
        let versions = state.prompts.get(name);
        let found = versions.and_then(|versions| match version {
            None => versions.last(),
            Some(wanted) => versions.iter().find(|file| file.version() == Some(wanted)),
        });
        found.cloned().ok_or_else(|| {
            let names: Vec<String> = state.prompts.keys().cloned().collect();
            Error::UnknownPrompt {
                name: name.to_owned(),
                version: version.map(str::to_owned),
                suggestion: if versions.is_some() { None } else { closest(name, &names) },
                versions: versions
                    .into_iter()
                    .flatten()
                    .filter_map(|file| file.version().map(str::to_owned))
                    .collect(),
            }
        })
    }

    /// All prompts in all versions: by name, the oldest version first. A reload does not disturb the walk.
    pub fn iter(&self) -> impl Iterator<Item = Arc<PromptFile>> + use<> {
        let all: Vec<_> = self.now().prompts.values().flatten().cloned().collect();
        all.into_iter()
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.now().prompts.keys().cloned().collect()
    }

    /// The folder, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.shared.folder.as_deref()
    }

    /// Reads the folder again. Nobody sees half of the new state; a file that is broken now keeps its last good version.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read; then all stays as it is. What is wrong with single files is in [`Reload::failed`].
    pub fn reload(&self) -> Result<Reload> {
        let mut reload = Reload::default();
        let Some(folder) = &self.shared.folder else { return Ok(reload) };
        let _one = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let state = read(folder, &self.now(), &mut reload)?;
        *self.shared.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        Ok(reload)
    }

    fn now(&self) -> Arc<State> {
        Arc::clone(&self.shared.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Orders the files by name and version, with the built-in prompts where the folder has none of their name.
    fn index(&mut self) {
        self.prompts.clear();
        for file in self.files.values() {
            self.prompts.entry(file.name().to_owned()).or_default().push(Arc::clone(file));
        }
        for name in builtin::names() {
            if !self.prompts.contains_key(name) {
                self.prompts.insert(name.to_owned(), vec![Arc::new(builtin::file(name))]);
            }
        }
        for versions in self.prompts.values_mut() {
            versions.sort_by(|a, b| version::compare(a.version(), b.version()));
        }
    }
}

/// Reads the folder, with what of `before` is still good.
fn read(folder: &Path, before: &State, reload: &mut Reload) -> Result<State> {
    let mut paths = Vec::new();
    find(folder, Path::new(""), 0, &mut paths)?;
    let mut state = State::default();

    for path in paths.iter().filter(|path| has_ending(path, "jinja")) {
        let name = name_of(path);
        match text_of(folder, path) {
            Ok(text) => state.partials.insert(name, text),
            Err(error) => {
                reload.failed.push(error);
                if let Some(text) = before.partials.get(&name) {
                    state.partials.insert(name, text);
                }
            }
        }
    }
    for (name, error) in state.partials.faults() {
        reload.failed.push(error);
        match before.partials.get(&name) {
            Some(text) => state.partials.insert(name, text),
            None => state.partials.remove(&name),
        }
    }
    let same_partials = state.partials == before.partials;

    let mut taken: BTreeMap<(String, Option<String>), PathBuf> = BTreeMap::new();
    for path in paths.into_iter().filter(|path| has_ending(path, "md")) {
        let known = before.files.get(&path);
        let file = text_of(folder, &path).and_then(|text| match known {
            Some(known) if same_partials && known.source() == text => Ok(Arc::clone(known)),
            _ => parse(&state.partials, &path, &text).map(Arc::new),
        });
        let file = file.and_then(|file| {
            let key = (file.name().to_owned(), file.version().map(str::to_owned));
            match taken.get(&key) {
                None => Ok(file),
                Some(other) => Err(Error::PromptFile {
                    file: path.display().to_string(),
                    line: 1,
                    reason: format!(
                        "{} has the same name and version: give one of them another",
                        other.display()
                    ),
                }),
            }
        });
        let file = match (file, known) {
            (Ok(file), None) => {
                reload.added.push(path.clone());
                file
            }
            (Ok(file), Some(known)) => {
                if file != *known {
                    reload.changed.push(path.clone());
                }
                file
            }
            (Err(error), known) => {
                reload.failed.push(error);
                let Some(known) = known else { continue };
                Arc::clone(known)
            }
        };
        taken.insert((file.name().to_owned(), file.version().map(str::to_owned)), path.clone());
        state.files.insert(path, file);
    }
    reload.removed = before.files.keys().filter(|path| !state.files.contains_key(*path)).cloned().collect();
    state.index();
    Ok(state)
}

fn parse(partials: &Partials, path: &Path, text: &str) -> Result<PromptFile> {
    let name = name_of(path);
    // Folders may have an `@` in their names.
    let file_name = name.rfind('/').map_or(0, |slash| slash + 1);
    let (name, version) = match name[file_name..].rfind('@') {
        Some(at) => (&name[..file_name + at], Some(&name[file_name + at + 1..])),
        None => (name.as_str(), None),
    };
    let file = PromptFile::parse_with(partials, &path.display().to_string(), Some(name), text)?;
    match (version, file.version()) {
        (Some(path_s), Some(own)) if path_s != own => Err(Error::PromptFile {
            file: path.display().to_string(),
            line: 2,
            reason: format!(
                "its version is `{own}`, its path says `{path_s}`: make them equal, or leave the version out"
            ),
        }),
        (Some(version), None) => Ok(file.with_version(version)),
        _ => Ok(file),
    }
}

/// The path without its ending, with `/` between folders.
fn name_of(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let name = parts.join("/");
    name.strip_suffix(".md").or_else(|| name.strip_suffix(".jinja")).unwrap_or(&name).to_owned()
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

fn text_of(folder: &Path, path: &Path) -> Result<String> {
    let full = folder.join(path);
    let failed = |source| Error::Io { action: "read", path: full.clone(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(&full).map_err(failed)?;
    // A file may grow while it is read.
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > LARGEST {
        return Err(Error::Oversized {
            what: path.display().to_string(),
            found: bytes.len(),
            allowed: LARGEST,
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        Error::PromptFile { file: path.display().to_string(), line, reason: "it is not UTF-8".to_owned() }
    })?;
    Ok(crate::template::normalised(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
}

fn find(folder: &Path, below: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<()> {
    let here = folder.join(below);
    let failed = |source| Error::Io { action: "read", path: here.clone(), source };
    let mut entries = fs::read_dir(&here).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = below.join(&name);
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth >= DEEPEST {
                return Err(too_much(&path, format!("folders are nested more than {DEEPEST} deep")));
            }
            find(folder, &path, depth + 1, paths)?;
        } else if (has_ending(&path, "md") || has_ending(&path, "jinja"))
            // Opening a pipe would wait for somebody to write.
            && fs::metadata(folder.join(&path)).is_ok_and(|found| found.is_file())
        {
            if paths.len() >= MOST_FILES {
                return Err(too_much(&path, format!("there are more than {MOST_FILES} files")));
            }
            paths.push(path);
        }
    }
    Ok(())
}

fn too_much(path: &Path, reason: String) -> Error {
    Error::PromptFile { file: path.display().to_string(), line: 1, reason }
}
