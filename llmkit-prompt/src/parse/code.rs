use std::ops::Range;

/// A fenced block of a Markdown text, as [`code_blocks`] finds it.
///
/// ```
/// let blocks = llmkit_prompt::parse::code_blocks("Like so:\n\n~~~rust,ignore\nfn main() {}\n~~~\n");
/// assert_eq!(blocks[0].language(), "rust");
/// assert_eq!(blocks[0].code, "fn main() {}\n");
/// assert!(blocks[0].closed);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeBlock {
    /// What stands behind the opening fence, trimmed.
    pub info: String,
    /// The lines of the block, without the indentation of its fence. Ends in a newline unless it is empty.
    pub code: String,
    /// Where the lines are in the text, in bytes; with their indentation.
    pub range: Range<usize>,
    /// Whether a closing fence was found; without one the block ends with the text, as when an answer was cut off.
    pub closed: bool,
}

impl CodeBlock {
    /// The language: the first word of the info string, in lower case; empty if there is none.
    pub fn language(&self) -> String {
        let word = self.info.split([' ', '\t', ',', '{']).next().unwrap_or_default();
        word.trim_start_matches('.').to_lowercase()
    }
}

/// The fenced code blocks of `text`, in order.
///
/// A fence is a line of at least three backticks or tildes; the block ends with a line of at least as many of the same and nothing else, so
/// a longer fence can hold a shorter one. As in CommonMark, except that a fence may be indented by any amount (models indent those in list items)
/// and that blocks that are merely indented do not count.
///
/// ```
/// let blocks = llmkit_prompt::parse::code_blocks("````md\n```\ninner\n```\n````\n```sql\nSELECT 1;");
/// assert_eq!(blocks[0].code, "```\ninner\n```\n");
/// assert_eq!(blocks[1].language(), "sql");
/// assert!(!blocks[1].closed);
/// ```
pub fn code_blocks(text: &str) -> Vec<CodeBlock> {
    let mut blocks = Vec::new();
    let mut open: Option<(Fence<'_>, CodeBlock)> = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let content = line.trim_end_matches(['\n', '\r']);
        match &mut open {
            None => {
                if let Some(fence) = Fence::read(content).filter(Fence::opens) {
                    let block = CodeBlock {
                        info: fence.rest.trim().to_owned(),
                        code: String::new(),
                        range: offset..offset,
                        closed: false,
                    };
                    open = Some((fence, block));
                }
            }
            Some((fence, block)) => {
                if Fence::read(content).is_some_and(|line| line.closes(fence)) {
                    block.closed = true;
                    block.range.end = start;
                    blocks.extend(open.take().map(|(_, block)| block));
                } else {
                    let spaces =
                        content.bytes().take(fence.indent).take_while(|byte| matches!(byte, b' ' | b'\t'));
                    block.code.push_str(&content[spaces.count()..]);
                    block.code.push('\n');
                    block.range.end = offset;
                }
            }
        }
    }
    blocks.extend(open.map(|(_, block)| block));
    blocks
}

struct Fence<'a> {
    indent: usize,
    mark: u8,
    length: usize,
    rest: &'a str,
}

impl<'a> Fence<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let trimmed = line.trim_start_matches([' ', '\t']);
        let mark = *trimmed.as_bytes().first()?;
        let length = trimmed.bytes().take_while(|byte| *byte == mark).count();
        (matches!(mark, b'`' | b'~') && length >= 3).then(|| Self {
            indent: line.len() - trimmed.len(),
            mark,
            length,
            rest: &trimmed[length..],
        })
    }

    /// Code between backticks on one line is no fence.
    fn opens(&self) -> bool {
        self.mark == b'~' || !self.rest.contains('`')
    }

    fn closes(&self, opening: &Fence<'_>) -> bool {
        self.mark == opening.mark && self.length >= opening.length && self.rest.trim().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_list_items_lose_the_indentation_of_their_fence() {
        let text = "1. Do\n    ```py\n    if x:\n        y()\n  z\n\n    ```\n2. Done\n";
        let blocks = code_blocks(text);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].code, "if x:\n    y()\nz\n\n");
        assert_eq!(&text[blocks[0].range.clone()], "    if x:\n        y()\n  z\n\n");
    }

    #[test]
    fn code_in_a_line_and_short_or_other_fences_are_none() {
        assert_eq!(code_blocks("```let x``` and ``\n``\n"), []);
        let blocks = code_blocks("~~~\n```\n~~\n~~~ x\n~~~~\n");
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].code, "```\n~~\n~~~ x\n");
        assert!(blocks[0].closed);
    }

    #[test]
    fn windows_lines_and_empty_blocks() {
        let blocks = code_blocks("```\r\na\r\n```\r\n```\n```");
        assert_eq!(blocks[0].code, "a\n");
        assert_eq!(blocks[1].code, "");
        assert!(blocks[1].closed);
        assert_eq!(code_blocks("```")[0].range, 3..3);
    }
}
