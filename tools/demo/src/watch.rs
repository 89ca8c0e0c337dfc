//! Waiting for what other processes do: shows how far it is, starts again what has ended, and gives
//! up when nothing moves.

use std::time::Duration;

use firstcome_rig::{figures::count, screen::Screen, system::System};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::load::Load;

/// How long it goes on while nothing moves at all.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(20);
/// How often it is looked how far things are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a program that ends in the middle is started again: kill one and see.
const MOST_REVIVALS: u32 = 5;

/// How far what is waited for has come.
#[derive(Debug)]
pub(crate) struct Progress {
    /// One line for people.
    pub(crate) status: String,
    /// Whatever changes when anything moves.
    pub(crate) figures: [usize; 3],
    /// There is nothing to wait for any more.
    pub(crate) done: bool,
}

/// Watches over the system while a load is on it.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) system: &'a mut System,
    /// Where the status is shown.
    pub(crate) screen: &'a mut Screen,
    /// When to stop waiting, whatever still moves.
    pub(crate) give_up: Instant,
    revivals: u32,
}

impl<'a> Watch<'a> {
    /// Has not seen anything yet.
    pub(crate) fn new(system: &'a mut System, screen: &'a mut Screen, give_up: Instant) -> Self {
        Self { system, screen, give_up, revivals: 0 }
    }

    /// Returns when it is done, when nothing moves any more, or when time is up.
    pub(crate) async fn until_done(&mut self, mut look: impl AsyncFnMut() -> Progress) {
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

    /// Watches a load until everything is answered and settled.
    pub(crate) async fn load(&mut self, load: &Load, mut tasks: JoinSet<()>) {
        let opened = Instant::now();
        self.until_done(async || {
            while tasks.try_join_next().is_some() {}
            let record = load.record();
            let selling = record.clicks < load.size();
            let mut status = format!(
                "{} {:.1} s: submitted {} of {}, accepted {}, settled {}",
                if selling { "selling" } else { "waiting for the outcomes" },
                opened.elapsed().as_secs_f64(),
                count(record.clicks),
                count(load.size()),
                count(record.accepted.len()),
                count(record.settled.len()),
            );
            if !record.turned_away.is_empty() {
                status += &format!(", turned away {}", count(record.turned_away.len()));
            }
            let figures = [record.clicks, record.settled.len(), record.retries];
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
