use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What happens to characters with a meaning when a value is put into a template's text. The template's own text is never touched.
///
/// What a macro, a filter block or a `{% set %}` block has made is not escaped a second time; `{{ x | safe }}` is not escaped at all.
///
/// ```
/// use llmkit_prompt::{Escape, PromptTemplate};
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let template = PromptTemplate::new("t", "<note>{{ text }}</note>", ["text"])?.with_escape(Escape::Xml);
/// assert_eq!(template.render(json!({ "text": "a < b" }))?, "<note>a &lt; b</note>");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Escape {
    /// Nothing: prompts are plain text. The default.
    #[default]
    None,
    /// `&`, `<`, `>`, `"` and `'` become entities, so that a value cannot open or close a tag.
    Xml,
    /// As inside a JSON string (without the quotes around it).
    Json,
    /// A backslash before ASCII punctuation that Markdown gives a meaning.
    Markdown,
}

impl Escape {
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("none", Self::None), ("xml", Self::Xml), ("json", Self::Json), ("markdown", Self::Markdown)];

    /// The text with its special characters made harmless.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        let replacement = |c: char| -> Option<Cow<'static, str>> {
            match (self, c) {
                (Self::Xml, '&') => Some("&amp;".into()),
                (Self::Xml, '<') => Some("&lt;".into()),
                (Self::Xml, '>') => Some("&gt;".into()),
                (Self::Xml, '"') => Some("&#34;".into()),
                (Self::Xml, '\'') => Some("&#39;".into()),
                (Self::Json, '"') => Some("\\\"".into()),
                (Self::Json, '\\') => Some("\\\\".into()),
                (Self::Json, '\n') => Some("\\n".into()),
                (Self::Json, '\r') => Some("\\r".into()),
                (Self::Json, '\t') => Some("\\t".into()),
                (Self::Json, c) if c < ' ' => Some(format!("\\u{:04x}", u32::from(c)).into()),
                (Self::Markdown, c) if "\\`*_{}[]()#+-.!|<>~".contains(c) => Some(format!("\\{c}").into()),
                _ => None,
            }
        };
        if !text.chars().any(|c| replacement(c).is_some()) {
            return Cow::Borrowed(text);
        }
        let mut escaped = String::with_capacity(text.len() + text.len() / 8);
        for c in text.chars() {
            match replacement(c) {
                Some(replacement) => escaped.push_str(&replacement),
                None => escaped.push(c),
            }
        }
        Cow::Owned(escaped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_made_harmless() {
        assert_eq!(Escape::None.apply("<a> \"*\""), "<a> \"*\"");
        assert_eq!(Escape::Xml.apply("<a b='c'> & \"d\""), "&lt;a b=&#39;c&#39;&gt; &amp; &#34;d&#34;");
        assert_eq!(Escape::Markdown.apply("# *a* [b](c)"), "\\# \\*a\\* \\[b\\]\\(c\\)");
        let text = "a \"b\" \\ \n \u{1} é";
        let json = format!("\"{}\"", Escape::Json.apply(text));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
