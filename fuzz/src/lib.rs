//! What each fuzz target checks of its bytes. A target is one call of it; `tests/seeds.rs` makes the same calls with the
//! seeds, so that all tests notice when one of them no longer compiles or holds.

pub mod cursors;
pub mod envelope;
pub mod events;
pub mod ids;
mod imports;
pub mod json;

/// A number that follows from the bytes, for what is to be chosen by them.
fn number_of(data: &[u8]) -> u64 {
    // FNV-1a.
    data.iter().fold(0xcbf2_9ce4_8422_2325, |number, byte| {
        (number ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The same JSON object, with a field that no release knows.
fn with_an_unknown_field(json: &[u8]) -> Vec<u8> {
    let after = json.strip_prefix(b"{").expect("an object");
    [b"{\"added\":[{\"later\":null}],", after].concat()
}
