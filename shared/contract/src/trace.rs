//! W3C Trace Context: which of the client's traces a request belongs to.

use std::fmt;

/// The client's trace as its headers tell it: travels with a job, and to the events of what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`
    pub parent: TraceParent,
    /// `tracestate`
    pub state: Option<TraceState>,
}

impl From<TraceParent> for Trace {
    fn from(parent: TraceParent) -> Self {
        Self { parent, state: None }
    }
}

/// The `tracestate` of a request: what the client's own tracing wants to be passed on, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(Box<str>);

/// The longest state that is passed on, in bytes: so much the standard asks for.
const LONGEST_STATE: usize = 512;

impl TraceState {
    /// Takes the value of the header; `None` if there is nothing in it, or it cannot be passed on.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let state = header.trim_matches([' ', '\t', ',']);
        let is_printable = state.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let is_good = is_printable && (1..=LONGEST_STATE).contains(&state.len());
        is_good.then(|| Self(state.into()))
    }

    /// As the header says it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `traceparent` of a request, which travels with its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace to which the request belongs; never zero.
    pub trace_id: u128,
    /// The client's span that sent the request; never zero.
    pub parent_id: u64,
    /// The flags that have a meaning: bit 0 for sampled, bit 1 for random.
    pub flags: u8,
}

/// What every version begins with: `00-<trace id>-<parent id>-<flags>`.
const LENGTH: usize = 55;
/// The flags that have a meaning, sampled and random; the standard asks to clear the others.
const FLAGS: u8 = 0b11;

impl TraceParent {
    /// The trace, as it is written everywhere.
    #[must_use]
    pub fn id(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Reads the header; `None` if it is invalid, for which the standard asks to ignore it.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (known, unknown) = header.split_at_checked(LENGTH)?;
        let mut fields = known.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let parent_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(fields.next()?, 2)?).ok()?;
        let complete = match version {
            0 => unknown.is_empty(),
            0xff => false,
            // Later versions may add fields.
            _ => unknown.is_empty() || unknown.starts_with('-'),
        };
        let valid = complete && trace_id != 0 && parent_id != 0;
        valid.then_some(Self { trace_id, parent_id, flags: flags & FLAGS })
    }
}

/// Exactly so many digits, all lower case as the standard wants them.
fn hex(field: &str, digits: usize) -> Option<u128> {
    let hexadecimal = field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = (hexadecimal && field.len() == digits).then(|| u128::from_str_radix(field, 16));
    number?.ok()
}

/// As the header says it, in the version that we know.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, parent_id, flags } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_state_is_passed_on_as_it_came() {
        let read = |header: &str| TraceState::parse(header).map(|state| state.as_str().to_owned());
        for state in [
            "congo=t61rcWkgMzE",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "a=b c",
            &"x".repeat(512),
        ] {
            assert_eq!(read(state).as_deref(), Some(state));
        }
        assert_eq!(read(" a=1, \t").as_deref(), Some("a=1"));
        for none in ["", " ", ",", "a=\u{e9}", "a=\n", &"x".repeat(513)] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }

    fn read_back(header: &str) -> Option<String> {
        TraceParent::parse(header).map(|trace| trace.to_string())
    }

    #[test]
    fn the_standards_examples() {
        assert_eq!(read_back(VALID).as_deref(), Some(VALID));
        // A later version is read as far as it is known, and passed on in ours.
        for later in [VALID.replacen("00", "cc", 1), VALID.replacen("00", "01", 1) + "-what-else"] {
            assert_eq!(read_back(&later).as_deref(), Some(VALID), "{later}");
        }
        let unknown_flags = VALID[..LENGTH - 2].to_owned() + "fd";
        assert_eq!(read_back(&unknown_flags).as_deref(), Some(VALID));
        for invalid in [
            String::new(),
            VALID.to_uppercase(),
            VALID.replacen("00", "ff", 1),
            VALID.replacen("00", "0x", 1),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.replace('-', "_"),
            VALID.replace("-00f067", "0-0f067"),
            VALID.replace("4bf9", "+bf9"),
            VALID[1..].to_owned(),
            format!("{VALID}-what-else"),
            format!("{}x", VALID.replacen("00", "01", 1)),
            format!(" {VALID}"),
        ] {
            assert_eq!(read_back(&invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn what_is_valid_reads_back(trace_id in 1u128.., parent_id in 1u64.., flags in 0u8..=3) {
            let header = format!("00-{trace_id:032x}-{parent_id:016x}-{flags:02x}");
            prop_assert_eq!(read_back(&header), Some(header));
        }

        #[test]
        fn nothing_else_is_valid(header in "(00-[0-9a-fA-F-]{0,60}|.{0,60})") {
            let fields: Vec<&str> = header.split('-').collect();
            let lower = |field: &str| field.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            let zero = |field: &str| field.bytes().all(|byte| byte == b'0');
            let valid = match fields.as_slice() {
                ["00", trace, parent, flags] => {
                    [trace.len(), parent.len(), flags.len()] == [32, 16, 2]
                        && lower(trace) && lower(parent) && lower(flags)
                        && !zero(trace) && !zero(parent)
                }
                [version, ..] => *version != "00" && TraceParent::parse(&header).is_some(),
                [] => false,
            };
            prop_assert_eq!(TraceParent::parse(&header).is_some(), valid);
        }

        #[test]
        fn one_changed_byte_is_noticed_or_kept(at in 0..LENGTH, byte in 0u8..0x80) {
            let mut changed = VALID.as_bytes().to_vec();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Some(read) = read_back(&changed) {
                // All but the version and the unknown flags.
                prop_assert_eq!(&read[2..LENGTH - 2], &changed[2..LENGTH - 2]);
            }
        }
    }
}
