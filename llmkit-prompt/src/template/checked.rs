//! What texts and conversations have in common: templates, their variables, and the values given so far.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::Value;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::engine::{Engine, normalised};
use super::rendered::Rendered;
use super::{Escape, Partials, variables};
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) engine: Engine,
    /// Those that rendering needs.
    pub(super) variables: Vec<String>,
    /// Those that have their value.
    values: IndexMap<String, serde_json::Value>,
    pub(super) untrusted: Vec<String>,
}

impl Checked {
    pub(super) fn new(
        partials: &Partials,
        name: String,
        roots: impl IntoIterator<Item = (String, String)>,
        variables: Vec<String>,
    ) -> Result<Self> {
        let roots = roots.into_iter().map(|(name, source)| (name, Arc::from(normalised(source)))).collect();
        let engine = Engine::new(roots, partials, Escape::None)?;
        variables::check(&name, &engine, &variables)?;
        Ok(Self { name, engine, variables, values: IndexMap::new(), untrusted: Vec::new() })
    }

    pub(super) fn source(&self, root: usize) -> &str {
        &self.engine.roots()[root].1
    }

    pub(super) fn with_value(mut self, name: &str, value: impl Serialize) -> Result<Self> {
        variables::known(&self.name, &self.variables, [name])?;
        let value = serde_json::to_value(value).map_err(|source| Error::Value {
            prompt: self.name.clone(),
            name: name.to_owned(),
            source,
        })?;
        self.variables.retain(|variable| variable != name);
        self.values.insert(name.to_owned(), value);
        Ok(self)
    }

    pub(super) fn with_untrusted(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let all: Vec<String> = self.variables.iter().chain(self.values.keys()).cloned().collect();
        for name in names {
            let name = name.as_ref();
            variables::known(&self.name, &all, [name])?;
            if !self.untrusted.iter().any(|known| known == name) {
                self.untrusted.push(name.to_owned());
            }
        }
        Ok(self)
    }

    pub(super) fn with_escape(mut self, escape: Escape) -> Self {
        self.engine = self.engine.with_escape(escape);
        self
    }

    pub(super) fn supplied_by(&self, supplied: &[&str]) -> Result<()> {
        let wanted: Vec<String> =
            self.variables.iter().filter(|name| !supplied.contains(&name.as_str())).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let supplied = supplied.iter().map(|name| (*name).to_owned()).collect();
        Err(Error::NotSupplied { prompt: self.name.clone(), wanted, supplied })
    }

    pub(super) fn values(&self, values: impl Serialize) -> Result<Value> {
        variables::take(&self.name, &self.variables, &self.values, values)
    }

    pub(super) fn render(&self, root: usize, values: Value) -> Result<String> {
        if self.untrusted.is_empty() {
            return self.engine.render(root, values);
        }
        Ok(self.explain(root, values)?.into_text())
    }

    pub(super) fn explain(&self, root: usize, values: Value) -> Result<Rendered> {
        let (text, spans) = self.engine.render_with_spans(root, values)?;
        let source = |name: &str| {
            let root = self.engine.roots().iter().find(|(root, _)| root == name).map(|(_, source)| source);
            root.or_else(|| self.engine.partials().get(name)).cloned()
        };
        Ok(Rendered::assemble(&self.name, text, &spans, self.engine.analysis(), source, &self.untrusted))
    }

    /// Everything that decides what is rendered, without the prompt's name.
    pub(super) fn content(&self) -> serde_json::Value {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let values: std::collections::BTreeMap<_, _> = self.values.iter().collect();
        json!({
            "templates": self.engine.roots().iter().map(|(_, source)| &**source).collect::<Vec<_>>(),
            "partials": self.engine.partials().iter().map(|(name, source)| (name, &**source)).collect::<Vec<_>>(),
            "variables": sorted(&self.variables),
            "values": values,
            "untrusted": sorted(&self.untrusted),
            "escape": self.engine.escape(),
        })
    }
}

/// The SHA-256 of a value's JSON, in lower-case hexadecimal digits.
pub(crate) fn hash(content: &serde_json::Value) -> String {
    Sha256::digest(content.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
