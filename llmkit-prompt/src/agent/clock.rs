use chrono::{DateTime, FixedOffset, Local, SecondsFormat, Utc};
use serde::Serialize;

use super::{FnTool, NoArguments, sync_tool};

/// A tool named `current_time` that says what day and time it is, here and in UTC.
///
/// ```
/// use llmkit_prompt::agent::{Tool, current_time};
/// use serde_json::json;
///
/// let output = pollster::block_on(current_time().call(json!({}))).unwrap();
/// let time: serde_json::Value = serde_json::from_str(&output.text).unwrap();
/// assert!(time["weekday"].as_str().unwrap().ends_with("day"));
/// ```
pub fn current_time() -> FnTool {
    current_time_by(|| Local::now().fixed_offset())
}

/// [`current_time`] by another clock: for tests that always happen at the same moment, or for the time at another place.
///
/// ```
/// use chrono::DateTime;
/// use llmkit_prompt::agent::{Tool, current_time_by};
/// use serde_json::json;
///
/// let noon = DateTime::parse_from_rfc3339("2026-03-03T12:00:00+01:00").unwrap();
/// let output = pollster::block_on(current_time_by(move || noon).call(json!({}))).unwrap();
/// assert_eq!(
///     output.text,
///     r#"{"weekday":"Tuesday","local":"2026-03-03T12:00:00+01:00","utc":"2026-03-03T11:00:00Z"}"#
/// );
/// ```
pub fn current_time_by(clock: impl Fn() -> DateTime<FixedOffset> + Send + Sync + 'static) -> FnTool {
    let tell = move |_: NoArguments| {
        let now = clock();
        Ok(Moment {
            weekday: now.format("%A").to_string(),
            local: now.to_rfc3339_opts(SecondsFormat::Secs, true),
            utc: now.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Secs, true),
        })
    };
    sync_tool("current_time", "Says what day and time it is now.", tell).read_only()
}

#[derive(Serialize)]
struct Moment {
    weekday: String,
    local: String,
    utc: String,
}
