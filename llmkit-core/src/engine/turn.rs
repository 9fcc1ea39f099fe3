//! What a request makes of a model: the text that it reads, the form that its answer has, and how that is read.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::Value;

use crate::generate::{Constraint, GenerationConfig};
use crate::models::Pretrained;
use crate::{
    AnswerReader, ChatRequest, DecodeStream, Error, Message, RenderOptions, ResponseFormat, Result,
    ToolCallFormat, ToolChoice,
};

/// The vocabulary that grammars need, prepared when the first answer needs one.
#[derive(Debug, Default)]
pub(super) struct Grammars {
    #[cfg(feature = "constrained")]
    compiler: OnceLock<crate::generate::GrammarCompiler>,
    #[cfg(not(feature = "constrained"))]
    _none: OnceLock<()>,
}

/// One answer before it is written.
pub(super) struct Turn {
    pub(super) prompt: Vec<u32>,
    pub(super) config: GenerationConfig,
    pub(super) decoder: DecodeStream,
    pub(super) reader: AnswerReader,
    pub(super) constraint: Option<Box<dyn Constraint>>,
}

impl Turn {
    /// # Errors
    /// [`Error::Generation`] when the request asks for what the model cannot do, [`Error::Template`], [`Error::Tokenizer`] and
    /// [`Error::Grammar`].
    pub(super) fn new(request: &ChatRequest, pretrained: &Pretrained, grammars: &Grammars) -> Result<Self> {
        let Pretrained { tokenizer, chat_template, generation, .. } = pretrained;
        let mut config = generation.for_request(request);
        let format = calls_of(request, pretrained)?;
        let tools = request.tools.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>();
        let tools = tools.map_err(|error| Error::Template {
            reason: format!("the tools cannot be written as JSON: {error}"),
        })?;
        let options = RenderOptions { add_generation_prompt: true, tools, ..RenderOptions::default() };
        let text = chat_template.render_with(&request.messages, &options)?;
        // The template writes the special tokens itself.
        let prompt = tokenizer.encode(&text, false)?;
        if prompt.is_empty() {
            return Err(Error::Generation {
                setting: "messages",
                expected: "a conversation that the chat template turns into text",
                found: "none".into(),
            });
        }

        let mut reader = AnswerReader::new();
        // Some templates open the thoughts, and some close them at once where none are wanted.
        let thinks = chat_template.thinks();
        let inside = thinks && text.trim_end().ends_with("<think>");
        if thinks {
            reader = reader.with_thinking(inside);
        }
        let mut decoder = tokenizer.decode_stream(true);
        let calls = format.filter(|_| request.tool_choice != ToolChoice::None);
        if let Some(format) = calls {
            reader = reader.with_calls(format, &request.tools);
            decoder = decoder.showing(format.markers().iter().filter_map(|mark| tokenizer.token_to_id(mark)));
        } else if let Some(format) = format {
            config.suppress_tokens.extend(tokenizer.token_to_id(format.opening()));
        }
        let constraint = grammars.constraint(request, calls, pretrained, &config)?;
        let constraint = constraint.map(|inner| -> Box<dyn Constraint> {
            if thinks { Box::new(AfterThoughts::new(inner, inside, pretrained, &config)) } else { inner }
        });
        Ok(Self { prompt, config, decoder, reader, constraint })
    }
}

/// How the answer may call tools; none where the request has none.
fn calls_of(request: &ChatRequest, pretrained: &Pretrained) -> Result<Option<ToolCallFormat>> {
    let refuse = |setting, expected, found: String| Err(Error::Generation { setting, expected, found });
    if request.tools.is_empty() {
        return match &request.tool_choice {
            ToolChoice::Auto | ToolChoice::None => Ok(None),
            ToolChoice::Required | ToolChoice::Tool(_) => {
                refuse("tool_choice", "tools to choose from", "none".to_owned())
            }
        };
    }
    if let ToolChoice::Tool(name) = &request.tool_choice
        && !request.tools.iter().any(|tool| tool.name == *name)
    {
        let names: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
        return refuse(
            "tool_choice",
            "one of the request's tools",
            format!("`{name}`, where they are {}", names.join(", ")),
        );
    }
    match pretrained.chat_template.tool_calls() {
        Some(format) => Ok(Some(format)),
        None => refuse(
            "tools",
            "none, or a model whose chat template shows tools in a way that is known",
            format!(
                "{} tools and another template (agents that put tools into the prompt work with any model)",
                request.tools.len()
            ),
        ),
    }
}

/// Gives ids to the calls of a turn that have none: nine letters and digits, as Mistral's templates want them, and none twice in a
/// conversation.
pub(super) fn number_calls(conversation: &[Message], answer: &mut Message) {
    let known = conversation.iter().chain([&*answer]).flat_map(|message| &message.tool_calls);
    let mut taken: BTreeSet<String> = known.filter_map(|call| call.id.clone()).collect();
    let mut next = taken.len();
    for call in answer.tool_calls.iter_mut().filter(|call| call.id.is_none()) {
        let id = loop {
            let id = format!("call{next:05}");
            next += 1;
            if taken.insert(id.clone()) {
                break id;
            }
        };
        call.id = Some(id);
    }
}

impl Grammars {
    /// What holds the answer to its form; none where any text will do.
    fn constraint(
        &self,
        request: &ChatRequest,
        calls: Option<ToolCallFormat>,
        pretrained: &Pretrained,
        config: &GenerationConfig,
    ) -> Result<Option<Box<dyn Constraint>>> {
        let forced = matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Tool(_));
        if !forced && request.response_format == ResponseFormat::Text {
            return Ok(None);
        }
        #[cfg(feature = "constrained")]
        {
            use super::forms;
            let compiler = match self.compiler.get() {
                Some(compiler) => compiler,
                None => {
                    let compiler =
                        crate::generate::GrammarCompiler::new(&pretrained.tokenizer, &config.eos_token_ids)?;
                    self.compiler.get_or_init(|| compiler)
                }
            };
            let grammar = forms::grammar(request, calls, &pretrained.tokenizer)?;
            Ok(Some(Box::new(compiler.compile(&grammar)?)))
        }
        #[cfg(not(feature = "constrained"))]
        {
            let _ = (calls, pretrained, config);
            let (setting, found) = match forced {
                true => ("tool_choice", "a call that must be made"),
                false => ("response_format", "JSON"),
            };
            Err(Error::Generation {
                setting,
                expected: "what needs no grammar, or a build with llmkit-core's feature `constrained`",
                found: found.to_owned(),
            })
        }
    }
}

/// Lets a model think before the constraint holds.
struct AfterThoughts {
    inner: Box<dyn Constraint>,
    stage: Stage,
    /// The token that begins thoughts, where it is one.
    opening: Option<u32>,
    eos_token_ids: Vec<u32>,
    decoder: DecodeStream,
    /// The end of the thoughts so far.
    tail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Thoughts,
    After,
}

impl AfterThoughts {
    fn new(
        inner: Box<dyn Constraint>,
        inside: bool,
        pretrained: &Pretrained,
        config: &GenerationConfig,
    ) -> Self {
        Self {
            inner,
            stage: if inside { Stage::Thoughts } else { Stage::Before },
            opening: pretrained.tokenizer.token_to_id("<think>"),
            eos_token_ids: config.eos_token_ids.clone(),
            decoder: pretrained.tokenizer.decode_stream(false),
            tail: String::new(),
        }
    }
}

impl Constraint for AfterThoughts {
    fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        match self.stage {
            Stage::After => self.inner.mask(logits),
            Stage::Thoughts => {
                // An answer does not end in thought.
                for &id in &self.eos_token_ids {
                    if let Some(logit) = logits.get_mut(id as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
                Ok(())
            }
            Stage::Before => {
                let opening = self.opening.and_then(|id| Some((id as usize, *logits.get(id as usize)?)));
                self.inner.mask(logits)?;
                if let Some((index, logit)) = opening {
                    logits[index] = logit;
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        match self.stage {
            Stage::Before if self.opening == Some(token) => self.stage = Stage::Thoughts,
            Stage::Before | Stage::After => {
                self.stage = Stage::After;
                self.inner.accept(token)?;
            }
            Stage::Thoughts => {
                self.tail += &self.decoder.step(token)?.unwrap_or_default();
                if self.tail.contains("</think>") {
                    self.stage = Stage::After;
                }
                let keep = self.tail.len().saturating_sub("</think>".len());
                self.tail.drain(..self.tail.floor_char_boundary(keep));
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::After && self.inner.is_over()
    }
}
