//! Notifications on the desktop, through org.freedesktop.Notifications on the session bus.
//!
//! Never in the way: each message is a task of its own, and what cannot be shown (no bus, nobody
//! who shows it, no answer) is left out with a line in the debug log. One message of a kind a
//! minute; what comes within goes into the next.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use tokio::time::timeout;
use zbus::Connection;
use zbus::Variant;

const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const ICON: &str = "folder-remote";
/// Longest wait for bus and desktop.
const WAIT: Duration = Duration::from_secs(3);
/// Shortest time between two messages of one kind.
const PAUSE: Duration = Duration::from_secs(60);
/// Things that one message names; of more it says how many.
const NAMED_MAX: usize = 3;
/// Longest text about one thing (characters).
const LINE_MAX: usize = 400;
/// The desktop decides how long it is shown.
const EXPIRES: i32 = -1;

/// What people are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Conflict,
    MassChange,
    Refused,
}

impl Topic {
    const ALL: [Self; 3] = [Self::Conflict, Self::MassChange, Self::Refused];

    fn title(self) -> &'static str {
        match self {
            Self::Conflict => "Two devices changed the same file",
            Self::MassChange => "Another device changed very many files",
            Self::Refused => "The server does not take changes",
        }
    }
}

/// What is still to be told, by topic.
#[derive(Debug, Default)]
pub struct Desktop {
    waiting: HashMap<Topic, Waiting>,
    told: HashMap<Topic, Instant>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<String>,
    more: usize,
}

impl Desktop {
    pub fn add(&mut self, topic: Topic, line: &str) {
        let waiting = self.waiting.entry(topic).or_default();
        if waiting.lines.len() < NAMED_MAX {
            waiting.lines.push(plain(line));
        } else {
            waiting.more += 1;
        }
    }

    /// Shows what waits and may be shown now, and waits for nothing.
    pub fn show(&mut self, now: Instant) {
        for topic in Topic::ALL {
            if let Some(body) = self.due(topic, now) {
                tokio::spawn(send(topic.title(), body));
            }
        }
    }

    /// The message of a topic, if it is time for one.
    fn due(&mut self, topic: Topic, now: Instant) -> Option<String> {
        if self.told.get(&topic).is_some_and(|told| now.duration_since(*told) < PAUSE) {
            return None;
        }
        let Waiting { mut lines, more } = self.waiting.remove(&topic)?;
        self.told.insert(topic, now);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        Some(lines.join("\n"))
    }
}

/// Text as the desktop shall show it: one line, not endless, and no markup, for which it may take
/// what is in names of files.
fn plain(text: &str) -> String {
    let mut line = String::new();
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == LINE_MAX => {
                line.push('…');
                break;
            }
            '&' => line.push_str("&amp;"),
            '<' => line.push_str("&lt;"),
            '>' => line.push_str("&gt;"),
            c if c.is_control() => line.push(' '),
            c => line.push(c),
        }
    }
    line
}

async fn send(title: &'static str, body: String) {
    match timeout(WAIT, notify(title, &body)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "no desktop notification"),
        Err(_) => tracing::debug!("the desktop does not answer"),
    }
}

async fn notify(title: &str, body: &str) -> Result<(), zbus::Error> {
    let bus = Connection::session().await?;
    let (replaces, actions) = (0u32, Vec::<&str>::new());
    let hints: HashMap<&str, Variant<'_>> = HashMap::new();
    let message = ("drivefs", replaces, ICON, title, body, actions, hints, EXPIRES);
    bus.call_method(Some(SERVICE), PATH, Some(SERVICE), "Notify", &message).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_message_and_the_next_comes_after_a_pause() {
        let mut desktop = Desktop::default();
        let start = Instant::now();
        assert_eq!(desktop.due(Topic::Conflict, start), None);
        (1..=5).for_each(|n| desktop.add(Topic::Conflict, &n.to_string()));
        assert_eq!(desktop.due(Topic::Conflict, start).as_deref(), Some("1\n2\n3\nand 2 more"));
        desktop.add(Topic::Conflict, "6");
        assert_eq!(desktop.due(Topic::Conflict, start + PAUSE / 2), None);
        desktop.add(Topic::Refused, "other");
        assert!(desktop.due(Topic::Refused, start).is_some(), "topics do not wait for each other");
        assert_eq!(desktop.due(Topic::Conflict, start + PAUSE).as_deref(), Some("6"));
        assert_eq!(desktop.due(Topic::Conflict, start + 2 * PAUSE), None);
    }

    #[test]
    fn names_are_no_markup_no_lines_and_not_endless() {
        assert_eq!(plain("a & <b>\n\u{1b}[1mc"), "a &amp; &lt;b&gt;  [1mc");
        let long = plain(&"é".repeat(LINE_MAX + 1));
        assert_eq!(long, format!("{}…", "é".repeat(LINE_MAX)));
        assert_eq!(plain(&"é".repeat(LINE_MAX)), "é".repeat(LINE_MAX));
    }
}
