//! The `Idempotency-Key` of a POST, as it is sent; `known/keys` and `known/once.rs` keep what it promises.

use axum::http::HeaderMap;
use utoipa::IntoParams;

use super::problem::Problem;

const HEADER: &str = "idempotency-key";

/// The header, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `key` reads")]
pub(crate) struct IdempotencyKey {
    /// Makes the request safe to repeat: the same key with the same body gets the same answer, with
    /// another body 422.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    key: String,
}

/// The key of a request, if it has one.
///
/// # Errors
/// 400 if it is not 1..=255 visible ASCII characters, or sent twice.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    if !visible || !(1..=255).contains(&value.len()) || values.next().is_some() {
        return Err(Problem::invalid(
            "Idempotency-Key",
            "must be one header of 1 to 255 visible ASCII characters",
        ));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn keys_are_visible_ascii() {
        let key_of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).map_err(|_| ())
        };
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&[b"!az~"]), Ok(Some("!az~".to_owned())));
        assert_eq!(key_of(&[&[b'k'; 255]]).map(|key| key.map(|key| key.len())), Ok(Some(255)));
        for bad in [&b""[..], b"a b", b"caf\xc3\xa9", &[b'k'; 256]] {
            assert_eq!(key_of(&[bad]), Err(()));
        }
        assert_eq!(key_of(&[b"a", b"b"]), Err(()));
    }
}
