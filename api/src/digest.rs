//! Digests as texts.

use sha2::{Digest, Sha256};

/// The first half of a digest, in 32 hexadecimal digits: enough to tell things apart.
pub(crate) fn text(digest: Sha256) -> String {
    let half = digest.finalize().into_iter().take(16);
    let half = half.fold(0u128, |number, byte| number << 8 | u128::from(byte));
    format!("{half:032x}")
}
