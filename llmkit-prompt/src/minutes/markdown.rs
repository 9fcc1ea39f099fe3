//! Minutes as a text to read.

use std::fmt::Write;

use super::{ActionItem, Evidence, Minutes, RejectedKind, UnreadPart};

impl Minutes {
    /// The minutes in Markdown: each entry with its quote, who said it and when.
    ///
    /// ```
    /// use llmkit_prompt::minutes::{Decision, Evidence, Minutes};
    ///
    /// let evidence = Evidence::Verified {
    ///     text: "Then we ship on Monday.".into(),
    ///     range: 5..28,
    ///     distance: 0,
    ///     speaker: Some("Ana".into()),
    ///     at_seconds: Some(62.0),
    /// };
    /// let decision = Decision { what: "The release goes out on Monday.".into(), evidence };
    /// let minutes = Minutes { decisions: vec![decision], ..Minutes::default() };
    /// assert_eq!(
    ///     minutes.to_markdown(),
    ///     "# Minutes\n\n## Decisions\n\n\
    ///      - The release goes out on Monday.\n  > Then we ship on Monday. \u{2014} Ana, 0:01:02\n",
    /// );
    /// ```
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n", plain(self.title.as_deref().unwrap_or("Minutes")));
        if let Some(date) = self.date {
            push(&mut text, format_args!("\nDate: {date}\n"));
        }
        if !self.participants.is_empty() {
            let names: Vec<String> = self.participants.iter().map(|name| plain(name)).collect();
            push(&mut text, format_args!("\nParticipants: {}\n", names.join(", ")));
        }
        for unread in &self.unread {
            let UnreadPart { part, parts, beginning, .. } = unread;
            push(
                &mut text,
                format_args!(
                    "\nPart {part} of {parts} of the transcript is not in here: \"{}\"\n",
                    plain(beginning)
                ),
            );
        }
        heading(&mut text, "Topics", self.topics.len());
        for topic in &self.topics {
            push(&mut text, format_args!("- **{}**: {}\n", plain(&topic.title), plain(&topic.summary)));
            evidence(&mut text, &topic.evidence);
        }
        heading(&mut text, "Decisions", self.decisions.len());
        for decision in &self.decisions {
            push(&mut text, format_args!("- {}\n", plain(&decision.what)));
            evidence(&mut text, &decision.evidence);
        }
        heading(&mut text, "Action items", self.action_items.len());
        for item in &self.action_items {
            push(&mut text, format_args!("- [ ] {}\n", action(item)));
            evidence(&mut text, &item.evidence);
        }
        heading(&mut text, "Written down by the model, not shown by the transcript", self.rejected.len());
        for rejected in &self.rejected {
            let kind = match rejected.kind {
                RejectedKind::Topic => "topic",
                RejectedKind::Decision => "decision",
                RejectedKind::ActionItem => "action item",
            };
            push(&mut text, format_args!("- ({kind}) {} ({})\n", plain(&rejected.what), rejected.reason));
        }
        text
    }
}

fn action(item: &ActionItem) -> String {
    let mut text = String::new();
    if let Some(owner) = &item.owner {
        let mark = if owner.verified { "" } else { " (unverified)" };
        push(&mut text, format_args!("**{}**{mark}: ", plain(&owner.name)));
    }
    text += &plain(&item.what);
    if let Some(due) = &item.due {
        let said = plain(&due.text);
        match (due.date, due.verified) {
            (Some(date), _) => push(&mut text, format_args!(", due {date} (\"{said}\")")),
            (None, true) => push(&mut text, format_args!(", due \"{said}\"")),
            (None, false) => push(&mut text, format_args!(", due \"{said}\" (unverified)")),
        }
    }
    text
}

fn evidence(text: &mut String, evidence: &Evidence) {
    match evidence {
        Evidence::Verified { text: quote, speaker, at_seconds, .. } => {
            push(text, format_args!("  > {}", plain(quote)));
            let at = at_seconds.map(|seconds| {
                // Rounded down, as players show it.
                let seconds = seconds as u64;
                format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            });
            let source: Vec<String> = speaker.as_deref().map(plain).into_iter().chain(at).collect();
            if !source.is_empty() {
                push(text, format_args!(" \u{2014} {}", source.join(", ")));
            }
            text.push('\n');
        }
        Evidence::Unverified { quote, reason } => {
            push(text, format_args!("  > {} (unverified: {reason})\n", plain(quote)));
        }
    }
}

fn heading(text: &mut String, title: &str, entries: usize) {
    if entries > 0 {
        push(text, format_args!("\n## {title}\n\n"));
    }
}

/// One line, in which nothing is markup.
fn plain(text: &str) -> String {
    let mut line = String::new();
    for letter in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if matches!(letter, '\\' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '#' | '|') {
            line.push('\\');
        }
        line.push(letter);
    }
    line
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string never fails");
}
