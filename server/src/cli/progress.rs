//! One line on a terminal that tells how far a long command is. Elsewhere it is silent.

use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::drive::fsck::Progress;

const REDRAW_EVERY: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

/// The line; it goes when this is dropped.
pub struct Line {
    drawing: Option<JoinHandle<()>>,
}

impl Line {
    pub fn show(progress: &Arc<Progress>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { drawing: None };
        }
        let progress = Arc::clone(progress);
        let drawing = tokio::spawn(async move {
            let mut since = (progress.now().0, Instant::now());
            loop {
                tokio::time::sleep(REDRAW_EVERY).await;
                let (phase, done, total) = progress.now();
                if since.0 != phase {
                    since = (phase, Instant::now());
                }
                draw(&text(phase, done, total, since.1.elapsed()));
            }
        });
        Self { drawing: Some(drawing) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(drawing) = self.drawing.take() {
            drawing.abort();
            draw("");
        }
    }
}

/// A terminal that cannot be written to shows nothing; the command goes on.
fn draw(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
}

fn text(phase: &str, done: u64, total: u64, elapsed: Duration) -> String {
    if total == 0 {
        return format!("{phase}: {done}");
    }
    let done = done.min(total);
    let filled = done * WIDTH / total;
    let bar: String = (0..WIDTH).map(|i| if i < filled { '#' } else { '.' }).collect();
    let left = elapsed.as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
    let left = if done == 0 { String::new() } else { format!(", {left:.0} s left") };
    format!("{phase} [{bar}] {done} of {total}{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_phase_share_and_time_left() {
        let line = text("packs", 10, 40, Duration::from_secs(5));
        assert!(line.starts_with("packs [#######..."), "{line}");
        assert!(line.ends_with("10 of 40, 15 s left"), "{line}");
        assert_eq!(text("versions", 7, 0, Duration::ZERO), "versions: 7");
    }
}
