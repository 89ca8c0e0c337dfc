//! Waiting for what other processes do: shows how far it is, starts again what has ended, and gives
//! up when nothing moves.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{report::count, sale::Sale, screen::Screen, system::System};

/// How long it goes on while nothing moves at all.
pub const STANDSTILL: Duration = Duration::from_secs(20);
/// How often it is looked how far things are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a program that ends in the middle is started again: kill one and see.
const MOST_REVIVALS: u32 = 5;

/// How far it is.
#[derive(Debug)]
pub struct Progress {
    /// For people.
    pub status: String,
    /// Whatever changes when anything moves.
    pub figures: [usize; 3],
    /// There is nothing to wait for any more.
    pub done: bool,
}

/// Looks after the system.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The system.
    pub system: &'a mut System,
    /// Where the status is shown.
    pub screen: &'a mut Screen,
    /// When it is enough.
    pub give_up: Instant,
    revivals: u32,
}

impl<'a> Watch<'a> {
    /// Has not seen anything yet.
    pub fn new(system: &'a mut System, screen: &'a mut Screen, give_up: Instant) -> Self {
        Self { system, screen, give_up, revivals: 0 }
    }

    /// Returns when it is done, when nothing moves any more, or when time is up.
    pub async fn until_done(&mut self, mut look: impl AsyncFnMut() -> Progress) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut moved = (Instant::now(), [0; 3]);
        loop {
            ticks.tick().await;
            let progress = look().await;
            if progress.done {
                return;
            }
            self.screen.status(progress.status);
            self.revive();
            if progress.figures != moved.1 {
                moved = (Instant::now(), progress.figures);
            }
            if moved.0.elapsed() > STANDSTILL {
                self.screen
                    .line(format_args!("nothing has moved for {STANDSTILL:?}: breaking off"));
                return;
            }
            if Instant::now() > self.give_up {
                self.screen.line("out of time (--deadline): breaking off");
                return;
            }
        }
    }

    /// Watches a sale until everything is answered and settled.
    pub async fn sale(&mut self, sale: &Sale, mut tasks: JoinSet<()>) {
        let opened = Instant::now();
        self.until_done(async || {
            while tasks.try_join_next().is_some() {}
            let record = sale.record();
            let selling = record.clicks < sale.size();
            let mut status = format!(
                "{} {:.1} s: submitted {} of {}, accepted {}, settled {}",
                if selling { "selling" } else { "waiting for the outcomes" },
                opened.elapsed().as_secs_f64(),
                count(record.clicks),
                count(sale.size()),
                count(record.accepted.len()),
                count(record.told.len()),
            );
            if !record.turned_away.is_empty() {
                status += &format!(", turned away {}", count(record.turned_away.len()));
            }
            let figures = [record.clicks, record.told.len(), record.retries];
            Progress { status, figures, done: tasks.is_empty() }
        })
        .await;
        // Those that are left are in vain; their connections would keep the API from stopping.
        tasks.shutdown().await;
    }

    fn revive(&mut self) {
        if self.revivals == MOST_REVIVALS {
            return;
        }
        match self.system.revive() {
            Ok(ended) => {
                for how in ended {
                    self.revivals += 1;
                    self.screen.line(format_args!(
                        "{how}\nstarted it again; now running {}",
                        self.system.processes()
                    ));
                }
            }
            Err(error) => self.screen.line(format_args!("{error:#}")),
        }
    }
}
