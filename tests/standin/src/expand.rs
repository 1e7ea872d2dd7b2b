//! Placeholders of pictures, from one per picture to as many as it has tokens, as real servers expand them: without looking whether
//! they are expanded already. In: ids as they were sent, sizes of the pictures. Out: ids as the model reads them.

use crate::asked::Refused;

/// A prompt after expansion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// What is echoed.
    pub tokens: Vec<u32>,
    /// Where each picture is: (first placeholder, placeholders).
    pub pictures: Vec<(usize, usize)>,
}

impl Expanded {
    /// Replaces the first `sizes.len()` placeholders by a run for each picture. Those that are left over stay, unnoticed: so does vLLM
    /// with ids that were expanded before.
    ///
    /// # Errors
    /// [`Refused`] where there are fewer placeholders than pictures.
    pub fn of(sent: &[u32], placeholder: u32, sizes: &[usize]) -> Result<Self, Refused> {
        let mut expanded = Self { tokens: Vec::with_capacity(sent.len() + sizes.iter().sum::<usize>()), pictures: vec![] };
        let mut waiting = sizes.iter();
        for token in sent {
            match waiting.as_slice().first().filter(|_| *token == placeholder) {
                Some(size) => {
                    waiting.next();
                    expanded.pictures.push((expanded.tokens.len(), *size));
                    expanded.tokens.extend(std::iter::repeat_n(placeholder, *size));
                }
                None => expanded.tokens.push(*token),
            }
        }
        match waiting.len() {
            0 => Ok(expanded),
            missing => Err(Refused::server(format!("Failed to apply prompt replacement for mm_items['image'][{}]", sizes.len() - missing))),
        }
    }

    /// What our engine is fed: it takes no placeholder without a picture.
    pub fn fed(&self, placeholder: u32) -> Vec<u32> {
        let is_pictures = |at: usize| self.pictures.iter().any(|(first, length)| (*first..first + length).contains(&at));
        let kept = self.tokens.iter().enumerate().filter(|(at, token)| **token != placeholder || is_pictures(*at));
        kept.map(|(_, token)| *token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 9;

    #[test]
    fn one_placeholder_per_picture_becomes_as_many_as_it_has_tokens() {
        let expanded = Expanded::of(&[1, PAD, 2, PAD, 3], PAD, &[3, 2]).expect("sound");
        assert_eq!(expanded.tokens, [1, PAD, PAD, PAD, 2, PAD, PAD, 3]);
        assert_eq!((expanded.pictures.clone(), expanded.fed(PAD)), (vec![(1, 3), (5, 2)], expanded.tokens.clone()));
        assert!(Expanded::of(&[1, PAD], PAD, &[1, 1]).expect_err("no place").message.contains("['image'][1]"));
    }

    #[test]
    fn expanded_ids_are_expanded_again_in_silence() {
        let once = Expanded::of(&[1, PAD, 2], PAD, &[24]).expect("sound").tokens;
        let twice = Expanded::of(&once, PAD, &[24]).expect("silence");
        assert_eq!((once.len(), twice.tokens.len()), (26, 49));
        assert_eq!(twice.fed(PAD), once);
    }
}
