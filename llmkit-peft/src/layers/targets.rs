use std::path::Path;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// PEFT's `target_modules` and `exclude_modules`: which layers a method acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// PEFT's choice for the method and the model's architecture: for LoRA, `q_proj` and `v_proj` of Llama and its kin, `query` and `value`
    /// of BERT. Architectures for which PEFT has none need names.
    ModelDefault,
    /// Every linear layer but the output head; those of experts, and their router, included.
    AllLinear,
    /// Layers whose whole path matches this regular expression.
    Regex(String),
    /// Layers whose path is one of these, or ends in `.` and one of these.
    Names(Vec<String>),
}

impl Targets {
    pub(crate) fn model_default() -> Self {
        Self::ModelDefault
    }

    /// The layers of these names.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }
}

/// One string or several, as PEFT's files hold them.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(given) = Option::<OneOrMany>::deserialize(deserializer)? else {
            return Ok(Self::ModelDefault);
        };
        Ok(match given {
            OneOrMany::One(text) if text.eq_ignore_ascii_case("all-linear") => Self::AllLinear,
            OneOrMany::One(pattern) => Self::Regex(pattern),
            OneOrMany::Many(names) => Self::Names(names),
        })
    }
}

impl Serialize for Targets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::ModelDefault => serializer.serialize_none(),
            Self::AllLinear => "all-linear".serialize(serializer),
            Self::Regex(pattern) => pattern.serialize(serializer),
            Self::Names(names) => names.serialize(serializer),
        }
    }
}

/// One integer or several, as PEFT's `layers_to_transform` holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Indices {
    One(usize),
    Many(Vec<usize>),
}

/// One string or several, as PEFT's `layers_pattern` holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Patterns {
    One(String),
    Many(Vec<String>),
}

/// The rules by which PEFT chooses layers, ready to be asked. Patterns are matched in linear time, since they may come from a
/// stranger's file.
#[derive(Debug)]
pub struct TargetModules {
    targets: Matcher,
    exclude: Option<Matcher>,
    modules_to_save: Vec<Regex>,
    layers: Option<LayerFilter>,
}

#[derive(Debug)]
enum Matcher {
    AllLinear,
    Whole(Regex),
    Names(Vec<String>),
}

#[derive(Debug)]
struct LayerFilter {
    indices: Vec<usize>,
    patterns: Vec<Regex>,
}

/// The fields of an adapter's configuration that choose layers.
pub(crate) struct TargetFields<'a> {
    pub(crate) target_modules: &'a Targets,
    pub(crate) exclude_modules: Option<&'a Targets>,
    pub(crate) modules_to_save: &'a [String],
    pub(crate) layers_to_transform: Option<&'a Indices>,
    pub(crate) layers_pattern: Option<&'a Patterns>,
}

impl<'a> TargetFields<'a> {
    /// Those that choose by name alone.
    pub(crate) fn all(target_modules: &'a Targets) -> Self {
        Self {
            target_modules,
            exclude_modules: None,
            modules_to_save: &[],
            layers_to_transform: None,
            layers_pattern: None,
        }
    }
}

impl TargetModules {
    /// Compiles the rules; `defaults` are the method's targets for the model, `origin` is the file that they came from, for errors.
    pub(crate) fn new(fields: TargetFields<'_>, defaults: Option<&[&str]>, origin: &Path) -> Result<Self> {
        let indices = match fields.layers_to_transform {
            None => Vec::new(),
            Some(Indices::One(index)) => vec![*index],
            Some(Indices::Many(indices)) => indices.clone(),
        };
        if fields.layers_pattern.is_some() && fields.layers_to_transform.is_none() {
            return Err(Error::Config {
                origin: origin.to_path_buf(),
                field: "layers_pattern".into(),
                expected: "null where `layers_to_transform` is null".into(),
                found: "a pattern".into(),
            });
        }
        let layers = match (indices.is_empty(), fields.target_modules) {
            (true, _) => None,
            (false, Targets::Names(_) | Targets::ModelDefault) => {
                Some(LayerFilter { indices, patterns: layer_patterns(&fields, origin)? })
            }
            (false, _) => {
                return Err(Error::Config {
                    origin: origin.to_path_buf(),
                    field: "layers_to_transform".into(),
                    expected:
                        "null where `target_modules` is a string (choose layers in its regular expression)"
                            .into(),
                    found: format!("{indices:?}"),
                });
            }
        };
        Ok(Self {
            targets: Matcher::new(fields.target_modules, "target_modules", defaults, origin)?,
            exclude: fields
                .exclude_modules
                .map(|exclude| Matcher::new(exclude, "exclude_modules", None, origin))
                .transpose()?,
            modules_to_save: fields
                .modules_to_save
                .iter()
                .map(|module| compile(&format!(r"^(^|.*\.){module}($|\..*)"), "modules_to_save", origin))
                .collect::<Result<_>>()?,
            layers,
        })
    }

    /// Whether the method acts on the layer of this path; `is_head` tells the output head from the others.
    pub fn matches(&self, path: &str, is_head: bool) -> bool {
        if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(path, is_head))
            || self.modules_to_save.iter().any(|module| module.is_match(path))
        {
            return false;
        }
        let named_in_full =
            matches!(&self.targets, Matcher::Names(names) if names.iter().any(|name| name == path));
        self.targets.matches(path, is_head)
            && (named_in_full || self.layers.as_ref().is_none_or(|layers| layers.matches(path)))
    }
}

impl Matcher {
    fn new(targets: &Targets, field: &str, defaults: Option<&[&str]>, origin: &Path) -> Result<Self> {
        Ok(match targets {
            Targets::ModelDefault => {
                let names = defaults.ok_or_else(|| Error::Config {
                    origin: origin.to_path_buf(),
                    field: field.to_owned(),
                    expected: "the layers' names (there is no default for this architecture)".into(),
                    found: "null".into(),
                })?;
                Self::Names(names.iter().copied().map(str::to_owned).collect())
            }
            Targets::AllLinear => Self::AllLinear,
            Targets::Regex(pattern) => Self::Whole(compile(&format!("^(?:{pattern})$"), field, origin)?),
            Targets::Names(names) => Self::Names(names.clone()),
        })
    }

    fn matches(&self, path: &str, is_head: bool) -> bool {
        match self {
            Self::AllLinear => !is_head,
            Self::Whole(pattern) => pattern.is_match(path),
            Self::Names(names) => names.iter().any(|name| {
                path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }
}

impl LayerFilter {
    fn matches(&self, path: &str) -> bool {
        let found = self.patterns.iter().find_map(|pattern| pattern.captures(path));
        let index = found.and_then(|found| found.name("idx")?.as_str().parse().ok());
        index.is_some_and(|index: usize| self.indices.contains(&index))
    }
}

fn layer_patterns(fields: &TargetFields<'_>, origin: &Path) -> Result<Vec<Regex>> {
    let named = match fields.layers_pattern {
        None => Vec::new(),
        Some(Patterns::One(pattern)) => vec![pattern.clone()],
        Some(Patterns::Many(patterns)) => patterns.clone(),
    };
    if named.is_empty() {
        return Ok(vec![compile(r"^.*?\.[^.]*\.(?P<idx>\d+)\.", "layers_pattern", origin)?]);
    }
    let compile_one =
        |pattern| compile(&format!(r"^(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."), "layers_pattern", origin);
    named.iter().map(compile_one).collect()
}

/// The first entry of `pattern` (PEFT's `rank_pattern` or `alpha_pattern`) whose key matches the end of `path`.
pub(crate) fn lookup_pattern<'a, T>(pattern: &'a [(Regex, T)], path: &str) -> Option<&'a T> {
    pattern.iter().find(|(key, _)| key.is_match(path)).map(|(_, value)| value)
}

/// Compiles the keys of a `rank_pattern` or `alpha_pattern`.
pub(crate) fn compile_pattern<T: Copy>(
    entries: impl IntoIterator<Item = (impl AsRef<str>, T)>,
    field: &str,
    origin: &Path,
) -> Result<Vec<(Regex, T)>> {
    entries
        .into_iter()
        .map(|(key, value)| Ok((compile(&format!(r"^(.*\.)?({})$", key.as_ref()), field, origin)?, value)))
        .collect()
}

/// Compiles a regular expression from a file's `field`.
pub(crate) fn compile(pattern: &str, field: &str, origin: &Path) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| Error::Config {
        origin: origin.to_path_buf(),
        field: field.to_owned(),
        expected: "a regular expression without look-around or back-references".into(),
        found: error.to_string(),
    })
}
