//! Programs that die or stand still.

use std::fmt;

use firstcome_process::fault_point;

use crate::{
    lines,
    world::{PROGRAMS, World},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramFault {
    /// SIGKILL; a supervisor starts it again at once.
    Killed(&'static str),
    /// SIGSTOP, then SIGCONT.
    Frozen(&'static str),
    /// All at once, as when a machine is lost.
    AllKilled,
    /// It dies by itself at this place, when it has passed it some times.
    Dies(&'static str, Place),
    /// Its clock is wrong by so many seconds.
    ClockApart(&'static str, i8),
}

/// A place in the code of the programs.
type Place = &'static str;

/// Who passes which places.
const PLACES: [(&str, Place); 8] = [
    ("api", fault_point::CONFIRMED),
    ("coupons-1", fault_point::COMMITTED),
    ("products-1", fault_point::MID_BATCH),
    ("products-2", fault_point::MID_HANDOVER),
    ("coupons-2", fault_point::MID_SWITCH),
    ("relay-outbox", fault_point::RELAYED),
    ("send-to-data-platform", fault_point::HANDLED),
    ("update-sales-stats", fault_point::HANDLED),
];
/// How often the place is passed before.
const PASSES: u32 = 2;
/// Whose clocks are wrong, and by how many seconds.
const CLOCKS: [(&str, i8); 5] =
    [("api", 3), ("api", -3), ("coupons-1", 3), ("products-1", -3), ("relay-outbox", 3)];

impl ProgramFault {
    pub(super) fn all() -> Vec<Self> {
        let names = || PROGRAMS.iter().map(|program| program.name);
        let places = PLACES.into_iter().map(|(name, place)| Self::Dies(name, place));
        let places = places.filter(|_| fault_point::ARE_BUILT);
        names()
            .map(Self::Killed)
            .chain(names().map(Self::Frozen))
            .chain([Self::AllKilled])
            .chain(places)
            .chain(CLOCKS.map(|(name, seconds)| Self::ClockApart(name, seconds)))
            .collect()
    }

    pub(super) async fn strike(self, world: &World) -> anyhow::Result<()> {
        let mut programs = world.programs.lock().await;
        match self {
            Self::Killed(name) => programs.signal(name, "KILL").await?,
            Self::Frozen(name) => programs.signal(name, "STOP").await?,
            Self::AllKilled => {
                for program in PROGRAMS {
                    programs.signal(program.name, "KILL").await?;
                }
            }
            Self::Dies(name, place) => {
                let comes_rarely =
                    [fault_point::MID_HANDOVER, fault_point::MID_SWITCH].contains(&place);
                let passes = if comes_rarely { 0 } else { PASSES };
                let told = format!("{place}:{passes}");
                programs.start_again(name, &[(fault_point::VARIABLE, told)]).await?;
                world.note_altered(name, &programs);
                drop(programs);
                if comes_rarely {
                    // New lines, which the others hand over to.
                    lines::deal_anew(world).await?;
                }
            }
            Self::ClockApart(name, seconds) => {
                let variables = [
                    ("LD_PRELOAD", world.services.fake_clock.clone()),
                    ("FAKETIME", format!("{seconds:+}s")),
                    // How long something takes is not wrong, only what time it is.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ];
                programs.start_again(name, &variables).await?;
                world.note_altered(name, &programs);
            }
        }
        Ok(())
    }

    pub(super) async fn mend(self, world: &World) -> anyhow::Result<()> {
        match self {
            // The supervisor's business.
            Self::Killed(_) | Self::AllKilled => {}
            // If it is still the same one: it may have died, or never come to the place.
            Self::Dies(name, _) | Self::ClockApart(name, _) => {
                let mut programs = world.programs.lock().await;
                if world.is_altered(name, &programs) {
                    programs.start_again(name, &[]).await?;
                }
            }
            Self::Frozen(name) => world.programs.lock().await.signal(name, "CONT").await?,
        }
        Ok(())
    }
}

impl fmt::Display for ProgramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(name) => write!(f, "{name}: killed"),
            Self::Frozen(name) => write!(f, "{name}: stopped for a while"),
            Self::AllKilled => f.write_str("all programs: killed"),
            Self::Dies(name, place) => write!(f, "{name}: dies {place}"),
            Self::ClockApart(name, seconds) => {
                write!(f, "{name}: its clock is {seconds:+} s wrong")
            }
        }
    }
}
