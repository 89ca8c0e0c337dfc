//! How the data platform misbehaves.

use std::fmt;

use firstcome_workers::commands::mock_data_platform::Mode;
use http::StatusCode;

use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlatformFault {
    Slow,
    Failing,
    Overloaded,
    Hanging,
    /// It takes the events and does not say so.
    Mute,
    Redirecting,
}

impl PlatformFault {
    pub(super) const ALL: [Self; 6] =
        [Self::Slow, Self::Failing, Self::Overloaded, Self::Hanging, Self::Mute, Self::Redirecting];

    pub(super) fn strike(self, world: &World) {
        world.platform.set_mode(match self {
            Self::Slow => Mode::Slow,
            Self::Failing => Mode::Error,
            Self::Overloaded => Mode::Overloaded,
            Self::Hanging => Mode::Hang,
            Self::Mute => Mode::Mute,
            Self::Redirecting => Mode::Elsewhere(StatusCode::FOUND),
        });
    }

    pub(super) fn mend(world: &World) {
        world.platform.set_mode(Mode::Ok);
    }
}

impl fmt::Display for PlatformFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "data platform: slow",
            Self::Failing => "data platform: answers 500",
            Self::Overloaded => "data platform: answers 429",
            Self::Hanging => "data platform: hangs",
            Self::Mute => "data platform: takes and does not answer",
            Self::Redirecting => "data platform: redirects",
        })
    }
}
