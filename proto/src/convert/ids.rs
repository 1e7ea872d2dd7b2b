//! Ids from the wire: bounded, not empty, and free of control and direction characters, so that they can stand in logs and labels.
//!
//! In: texts of a peer. Out: domain ids. Whether an id names anything that exists is not known here.

use hypereyes_domain::{ActorId, GroupId, PictureId, TaskId, TeacherId};
use hypereyes_outside::text::unprintable;

use super::{Invalid, at_most, each};
use crate::limits::{DIGEST_HEX, MAX_ID_BYTES, MAX_PICTURES};

/// Checks the text of any id but a picture's.
pub fn text(what: &str, id: String) -> Result<String, Invalid> {
    at_most(what, id.len(), MAX_ID_BYTES)?;
    if id.is_empty() {
        return Err(Invalid::new(what, "is empty"));
    }
    if let Some(found) = unprintable(&id) {
        let code = u32::from(found);
        return Err(Invalid::new(what, format!("has a control or direction character (U+{code:04X}), which no id may hold")));
    }
    Ok(id)
}

/// A group id.
pub fn group(what: &str, id: String) -> Result<GroupId, Invalid> {
    text(what, id).map(GroupId::new)
}

/// A task id.
pub fn task(what: &str, id: String) -> Result<TaskId, Invalid> {
    text(what, id).map(TaskId::new)
}

/// An actor id.
pub fn actor(what: &str, id: String) -> Result<ActorId, Invalid> {
    text(what, id).map(ActorId::new)
}

/// A teacher id.
pub fn teacher(what: &str, id: String) -> Result<TeacherId, Invalid> {
    text(what, id).map(TeacherId::new)
}

/// A picture id: 64 hex digits in lower case. It may become a file name, so nothing else is let through.
pub fn picture(what: &str, id: String) -> Result<PictureId, Invalid> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() != DIGEST_HEX || !id.bytes().all(hex) {
        return Err(Invalid::new(what, format!("is not {DIGEST_HEX} lower-case hex digits")));
    }
    Ok(PictureId::new(id))
}

/// At most [`MAX_PICTURES`] picture ids.
pub fn pictures(what: &str, ids: Vec<String>) -> Result<Vec<PictureId>, Invalid> {
    each(what, ids, MAX_PICTURES, |id| picture("id", id))
}

pub(crate) fn texts(ids: Vec<PictureId>) -> Vec<String> {
    ids.into_iter().map(|id| id.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ids_are_rejected() {
        for bad in ["", "a\nb", "a\0", "a\u{202e}b", "a\u{2028}b", "\u{feff}a", "a\u{85}b", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(group("id", bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(group("id", "mx-1@7".into()), Ok(GroupId::new("mx-1@7")));
    }

    #[test]
    fn a_picture_id_is_never_a_path() {
        for bad in ["../../etc/passwd".to_owned(), "A".repeat(64), "a".repeat(63), format!("{}/", "a".repeat(63)), "é".repeat(32)] {
            assert!(picture("id", bad.clone()).is_err(), "{bad}");
        }
        assert!(picture("id", "0123456789abcdef".repeat(4)).is_ok());
    }
}
