use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use llmkit_core::ToolDefinition;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Tool, ToolError, ToolOutput, ToolPolicy, suggest};
use crate::schema;

type Outcome = Result<ToolOutput, ToolError>;
type Body = dyn Fn(Value) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// A tool that is a function of typed arguments; made by [`tool`] and [`sync_tool`].
///
/// ```
/// use std::time::Duration;
/// use llmkit_prompt::agent::{NoArguments, Tool, tool};
///
/// let restart = tool("restart", "Restarts the service.", |_: NoArguments| async { Ok("restarted") })
///     .with_approval()
///     .with_timeout(Duration::from_secs(5));
/// assert!(restart.policy().needs_approval);
/// ```
#[derive(Clone)]
pub struct FnTool {
    definition: ToolDefinition,
    policy: ToolPolicy,
    body: Arc<Body>,
}

/// The arguments of a tool that takes none.
///
/// ```
/// use llmkit_prompt::agent::{NoArguments, Tool, sync_tool};
/// use serde_json::json;
///
/// let dice = sync_tool("dice", "Throws a die.", |_: NoArguments| Ok(4));
/// let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
/// assert_eq!(dice.definition().parameters, none);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct NoArguments {}

/// A tool that is the async function `body`.
///
/// The schema that the model reads is that of `A`: its fields are the arguments, their doc comments the descriptions, those of type
/// `Option` may be left out. State comes in by closure. Whatever serde can write is an output: a text as it is, the rest as JSON.
///
/// ```
/// use llmkit_prompt::agent::{Tool, tool};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use serde_json::json;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Weather {
///     /// The city's name in English.
///     city: String,
///     /// How many days ahead; today if left out.
///     days: Option<u8>,
/// }
///
/// # pollster::block_on(async {
/// let weather = tool("weather", "Says what the weather is like.", |args: Weather| async move {
///     Ok(format!("{}: 18 degrees in {} days", args.city, args.days.unwrap_or(0)))
/// });
///
/// let city = &weather.definition().parameters["properties"]["city"];
/// assert_eq!(city["description"], "The city's name in English.");
///
/// let output = weather.call(json!({"city": "Lima", "days": 2})).await.unwrap();
/// assert_eq!(output.text, "Lima: 18 degrees in 2 days");
///
/// let error = weather.call(json!({"city": "Lima", "days": "two"})).await.unwrap_err();
/// assert_eq!(error.to_string(), "wrong arguments: at `days`: invalid type: string \"two\", expected u8");
/// let error = weather.call(json!({"city": "Lima", "day": 2})).await.unwrap_err();
/// assert_eq!(error.to_string(), "wrong arguments: at `day`: there is no such argument; did you mean `days`?");
/// # });
/// ```
pub fn tool<A, O, F, Fut>(name: impl Into<String>, description: impl Into<String>, body: F) -> FnTool
where
    A: JsonSchema + DeserializeOwned + Send + 'static,
    O: Serialize,
    F: Fn(A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, ToolError>> + Send + 'static,
{
    let run = move |arguments: A| -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let output = body(arguments);
        Box::pin(async move { ToolOutput::of(&output.await?) })
    };
    from_boxed(name.into(), description.into(), run)
}

/// A tool that is the plain function `body`. While it runs nothing else of the agent does: what takes long belongs on a thread of its own,
/// or into a [`tool`].
///
/// ```
/// use llmkit_prompt::agent::{Tool, sync_tool};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use serde_json::json;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Add {
///     a: f64,
///     b: f64,
/// }
///
/// let add = sync_tool("add", "Adds two numbers.", |args: Add| Ok(args.a + args.b));
/// let output = pollster::block_on(add.call(json!({"a": 1, "b": 2.5}))).unwrap();
/// assert_eq!(output.text, "3.5");
/// ```
pub fn sync_tool<A, O, F>(name: impl Into<String>, description: impl Into<String>, body: F) -> FnTool
where
    A: JsonSchema + DeserializeOwned + Send + 'static,
    O: Serialize,
    F: Fn(A) -> Result<O, ToolError> + Send + Sync + 'static,
{
    let run = move |arguments: A| -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(future::ready(body(arguments).and_then(|output| ToolOutput::of(&output))))
    };
    from_boxed(name.into(), description.into(), run)
}

/// The tool whose body gives a whole [`ToolOutput`], with what it took.
pub(super) fn from_boxed<A, F>(name: String, description: String, body: F) -> FnTool
where
    A: JsonSchema + DeserializeOwned + Send + 'static,
    F: Fn(A) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync + 'static,
{
    let parameters = schema::of_type::<A>();
    let names: Option<Vec<String>> =
        schema::closed_names(&parameters).map(|names| names.into_iter().map(str::to_owned).collect());
    let body = Arc::new(body);
    let run = move |arguments: Value| -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let body = Arc::clone(&body);
        let arguments = read_arguments::<A>(arguments, names.as_deref());
        // The body is entered when the future is polled, where a panic is caught.
        Box::pin(async move { body(arguments?).await })
    };
    FnTool {
        definition: ToolDefinition::new(name, description, parameters),
        policy: ToolPolicy::default(),
        body: Arc::new(run),
    }
}

fn read_arguments<A: DeserializeOwned>(arguments: Value, names: Option<&[String]>) -> Result<A, ToolError> {
    let wrong = |path: String, reason: String| ToolError::Arguments { path, reason };
    let arguments = match arguments {
        // What models write when there is nothing to say.
        Value::Null => Value::Object(Map::new()),
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        arguments => arguments,
    };
    let Value::Object(given) = &arguments else {
        let found = excerpt(&arguments.to_string());
        return Err(wrong(String::new(), format!("expected a JSON object, found {found}")));
    };
    if let Some(names) = names
        && let Some(unknown) = given.keys().find(|key| !names.contains(key))
    {
        let meant = suggest::nearest(unknown, names.iter().map(String::as_str));
        let reason = match meant {
            Some(meant) => format!("there is no such argument; did you mean `{meant}`?"),
            None if names.is_empty() => "there is no such argument; the tool takes none".to_owned(),
            None => format!("there is no such argument; the arguments are {}", quoted(names)),
        };
        return Err(wrong(excerpt(unknown), reason));
    }
    serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        wrong(if path == "." { String::new() } else { path }, error.inner().to_string())
    })
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// At most 80 characters of what a model wrote.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl FnTool {
    /// The tool, each of whose calls is put to the agent's [`Approval`](super::Approval) first.
    pub fn with_approval(mut self) -> Self {
        self.policy.needs_approval = true;
        self
    }

    /// The tool, declared to change nothing.
    pub fn read_only(mut self) -> Self {
        self.policy.read_only = true;
        self
    }

    /// The tool, whose output comes from outside and is marked as data for the model.
    pub fn with_untrusted_output(mut self) -> Self {
        self.policy.untrusted = true;
        self
    }

    /// The tool with this as the longest time of a call, in place of 60 seconds.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = Some(timeout);
        self
    }

    /// The tool with calls that may take as long as the agent has.
    pub fn without_timeout(mut self) -> Self {
        self.policy.timeout = None;
        self
    }

    /// The tool with this as the longest output that the model is shown, in characters, in place of 20,000.
    pub fn with_output_limit(mut self, characters: usize) -> Self {
        self.policy.output_limit = characters;
        self
    }
}

#[async_trait]
impl Tool for FnTool {
    fn definition(&self) -> ToolDefinition {
        self.definition.clone()
    }

    fn policy(&self) -> ToolPolicy {
        self.policy.clone()
    }

    async fn call(&self, arguments: Value) -> Outcome {
        (self.body)(arguments).await
    }
}

impl fmt::Debug for FnTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnTool")
            .field("definition", &self.definition)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Trip {
        stops: Vec<Stop>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Stop {
        city: String,
        nights: u32,
    }

    fn trip() -> FnTool {
        sync_tool("trip", "Plans a trip.", |args: Trip| {
            Ok(args.stops.iter().map(|stop| format!("{} x{}", stop.city, stop.nights)).collect::<Vec<_>>())
        })
    }

    fn error(arguments: Value) -> String {
        pollster::block_on(trip().call(arguments)).unwrap_err().to_string()
    }

    #[test]
    fn arguments_are_read_and_faults_are_placed() {
        let fine = json!({"stops": [{"city": "Lima", "nights": 2}]});
        assert_eq!(pollster::block_on(trip().call(fine)).unwrap().text, r#"["Lima x2"]"#);
        assert_eq!(
            error(json!({"stops": [{"city": "Lima", "nights": 2}, {"city": "Cuzco"}]})),
            "wrong arguments: at `stops[1]`: missing field `nights`"
        );
        assert_eq!(
            error(json!({"stops": [{"city": "Lima", "nights": -1}]})),
            "wrong arguments: at `stops[0].nights`: invalid value: integer `-1`, expected u32"
        );
        assert_eq!(error(json!([1])), "wrong arguments: expected a JSON object, found [1]");
        assert_eq!(
            error(json!("{\"stops\": ")),
            r#"wrong arguments: expected a JSON object, found "{\"stops\": ""#
        );
        assert_eq!(error(Value::Null), "wrong arguments: missing field `stops`");
        assert_eq!(
            error(json!({"zzz": 1, "stops": []})),
            "wrong arguments: at `zzz`: there is no such argument; the arguments are `stops`"
        );
    }

    #[test]
    fn nothing_is_an_empty_object() {
        let dice = sync_tool("dice", "Throws a die.", |_: NoArguments| Ok(4));
        for nothing in [Value::Null, json!(""), json!({})] {
            assert_eq!(pollster::block_on(dice.call(nothing)).unwrap().text, "4");
        }
    }

    #[test]
    fn state_comes_by_closure() {
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let shared = Arc::clone(&count);
        let next = tool("next", "Counts.", move |_: NoArguments| {
            let shared = Arc::clone(&shared);
            async move { Ok(shared.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) }
        });
        for expected in ["0", "1"] {
            assert_eq!(pollster::block_on(next.call(json!({}))).unwrap().text, expected);
        }
    }
}
