//! Standard output: lines that stay, and a status that changes.

use std::{
    io::{IsTerminal, Write, stdout},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

/// How often the status changes on a terminal.
pub const REFRESH: Duration = Duration::from_millis(500);
/// How often it is worth a line where lines cannot be overwritten.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Who may write to standard output. A closed one is ignored: what was started must be stopped in
/// order all the same.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// A status is on the terminal's last line.
    status: bool,
    last_line: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        Self { terminal: stdout().is_terminal(), status: false, last_line: Instant::now() }
    }
}

impl Screen {
    /// Prints a line that stays.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        self.last_line = Instant::now();
        let clear = if std::mem::take(&mut self.status) { "\r\x1b[2K" } else { "" };
        let _ = writeln!(stdout(), "{clear}{text}").and_then(|()| stdout().flush());
    }

    /// Prints lines that stay.
    pub fn lines(&mut self, lines: impl IntoIterator<Item = impl std::fmt::Display>) {
        for line in lines {
            self.line(line);
        }
    }

    /// Shows what is going on: overwrites the last status, or prints a line if nothing was printed
    /// for a second.
    pub fn status(&mut self, text: impl std::fmt::Display) {
        if self.terminal {
            self.status = true;
            let _ = write!(stdout(), "\r\x1b[2K  {text}").and_then(|()| stdout().flush());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.line(format_args!("  {text}"));
        }
    }

    /// Shows how long `work` has been going on until it is done.
    pub async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // A line would stay, so not for what is done at once.
                _ = ticks.tick() => if self.terminal || started.elapsed() >= LINE_EVERY {
                    self.status(format_args!("{what} … {:.1} s", started.elapsed().as_secs_f64()));
                }
            }
        }
    }
}
