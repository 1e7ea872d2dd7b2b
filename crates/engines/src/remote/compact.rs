//! The two ways to write a prompt with pictures. In: expanded ids, as the model reads them, with how many placeholders each picture has.
//! Out: compact ids, with one placeholder per picture: what servers take, who expand themselves, and expand again what is expanded
//! already. It knows no server.

/// Compact ids.
///
/// # Errors
/// A text, when the placeholders are not those of the pictures.
pub fn compact(expanded: &[u32], pad: u32, counts: &[usize]) -> Result<Vec<u32>, String> {
    let mut ids = Vec::with_capacity(expanded.len());
    let mut counts = counts.iter().enumerate();
    let mut at = 0;
    while at < expanded.len() {
        ids.push(expanded[at]);
        if expanded[at] != pad {
            at += 1;
            continue;
        }
        let Some((picture, &count)) = counts.next() else {
            return Err(format!("token {at} is a picture placeholder and has no picture"));
        };
        let found = expanded[at..].iter().take(count).take_while(|id| **id == pad).count();
        if found < count || count == 0 {
            return Err(format!("picture {picture} has {found} placeholders from token {at} on, {count} were expected"));
        }
        at += count;
    }
    match counts.next() {
        Some((picture, _)) => Err(format!("picture {picture} has no placeholder")),
        None => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 9;

    #[test]
    fn every_picture_keeps_one_placeholder() {
        assert_eq!(compact(&[1, 2], PAD, &[]), Ok(vec![1, 2]));
        assert_eq!(compact(&[1, 9, 9, 9, 2, 9, 3], PAD, &[3, 1]), Ok(vec![1, 9, 2, 9, 3]));
        assert_eq!(compact(&[9, 9, 9, 9], PAD, &[1, 3]), Ok(vec![9, 9]), "pictures that touch");
    }

    #[test]
    fn placeholders_that_are_not_those_of_the_pictures_are_refused() {
        for (ids, counts) in [(&[1, 9][..], &[][..]), (&[1], &[2]), (&[9, 1, 9], &[2]), (&[9, 9], &[3]), (&[9, 9, 9], &[2]), (&[9], &[0])] {
            assert!(compact(ids, PAD, counts).is_err(), "{ids:?} {counts:?}");
        }
    }
}
