//! How a picture is to be turned before anybody looks at it. In: what a file says beside its pixels (EXIF, XMP). Out: one
//! of the eight orientations, and the turned picture. What makes no sense says nothing: such a picture is upright.
//!
//! As Pillow's `exif_transpose`, which transformers' `load_image` calls: the tag of EXIF's first directory; XMP's
//! `tiff:Orientation` where EXIF has none.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

/// EXIF's tag for it.
const TAG: u16 = 0x0112;
/// What some files put before the TIFF header, once or twice.
const PREFIX: &[u8] = b"Exif\0\0";

/// What a file says beside its pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// EXIF data, with or without its prefix.
    pub(crate) exif: Vec<u8>,
    /// An XMP packet.
    pub(crate) xmp: Vec<u8>,
}

impl Notes {
    /// The orientation, 1 to 8; 1 is upright.
    pub(crate) fn orientation(&self) -> u8 {
        of_exif(&self.exif).or_else(|| of_xmp(&self.xmp)).filter(|value| (1..=8).contains(value)).map_or(1, |value| value as u8)
    }
}

/// Turns a picture upright.
pub(crate) fn upright(picture: RgbImage, orientation: u8) -> RgbImage {
    match Orientation::from_exif(orientation) {
        None | Some(Orientation::NoTransforms) => picture,
        Some(turn) => {
            let mut turned = DynamicImage::ImageRgb8(picture);
            turned.apply_orientation(turn);
            turned.into_rgb8()
        }
    }
}

/// The tag's value, whatever it is; of several the last, as Pillow reads them.
fn of_exif(data: &[u8]) -> Option<u32> {
    let data = data.strip_prefix(PREFIX).unwrap_or(data);
    let data = data.strip_prefix(PREFIX).unwrap_or(data);
    let little = match data.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let two = |at: usize| -> Option<u16> {
        let bytes = data.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let four = |at: usize| -> Option<u32> {
        let bytes = data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(four(4)?).ok()?;
    let mut found = None;
    for entry in 0..usize::from(two(directory)?) {
        let at = directory.checked_add(2 + 12 * entry)?;
        // A directory that is cut short says what it says up to there.
        let (Some(tag), Some(kind), Some(count)) = (two(at), two(at + 2), four(at + 4)) else { break };
        if tag == TAG && count == 1 {
            found = match kind {
                1 => data.get(at + 8).map(|value| u32::from(*value)),
                3 => two(at + 8).map(u32::from),
                4 => four(at + 8),
                _ => None,
            }
            .or(found);
        }
    }
    found
}

/// The digit of `tiff:Orientation="6"` or `<tiff:Orientation>6<`.
fn of_xmp(packet: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    packet.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &packet[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// EXIF data with one directory of the given entries: tag, type, count, value.
    fn exif(little: bool, entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
        let two = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let four = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut data = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        data.extend(four(8));
        data.extend(two(entries.len() as u16));
        for (tag, kind, count, value) in entries {
            data.extend(two(*tag));
            data.extend(two(*kind));
            data.extend(four(*count));
            match kind {
                1 => data.extend([*value as u8, 0, 0, 0]),
                3 => data.extend([two(*value as u16), [0, 0]].concat()),
                _ => data.extend(four(*value)),
            }
        }
        data
    }

    #[test]
    fn the_tag_is_read_in_both_orders_and_every_whole_type() {
        for little in [true, false] {
            for kind in [1, 3, 4] {
                for value in 1..=8 {
                    let data = exif(little, &[(0x0100, 4, 1, 77), (TAG, kind, 1, value)]);
                    for prefix in [&b""[..], PREFIX, b"Exif\0\0Exif\0\0"] {
                        let notes = Notes { exif: [prefix, &data].concat(), xmp: b"tiff:Orientation=\"2\"".to_vec() };
                        assert_eq!(u32::from(notes.orientation()), value);
                    }
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_upright() {
        let upright = |exif: Vec<u8>| assert_eq!(Notes { exif, xmp: vec![] }.orientation(), 1);
        for value in [0, 9, 65535] {
            upright(exif(true, &[(TAG, 3, 1, value)]));
        }
        upright(exif(true, &[(TAG, 2, 1, 6)]));
        upright(exif(true, &[(TAG, 3, 2, 6)]));
        let whole = exif(false, &[(TAG, 3, 1, 6)]);
        for cut in 0..whole.len() - 4 {
            upright(whole[..cut].to_vec());
        }
        for at in 0..8 {
            let mut wrong = whole.clone();
            wrong[at] = 0xFF;
            upright(wrong);
        }
        let mut many = exif(true, &[(TAG, 3, 1, 6)]);
        many[8..10].copy_from_slice(&[0xFF, 0xFF]);
        assert_eq!(Notes { exif: many, xmp: vec![] }.orientation(), 6, "it stands before the cut");
    }

    #[test]
    fn xmp_says_it_where_exif_does_not() {
        let notes = |xmp: &[u8]| Notes { exif: exif(true, &[(0x0100, 4, 1, 7)]), xmp: xmp.to_vec() }.orientation();
        assert_eq!(notes(b"<rdf tiff:Orientation=\"6\"/>"), 6);
        assert_eq!(notes(b"<tiff:Orientation>8</tiff:Orientation>"), 8);
        assert_eq!([notes(b"tiff:Orientation"), notes(b"tiff:Orientation=\"x\""), notes(b"tiff:Orientation=\"9\"")], [1; 3]);
    }

    /// What each orientation makes of a picture of three by two, as Pillow 13 turns it.
    #[test]
    fn each_orientation_turns_as_pillow_does() {
        let stored = RgbImage::from_fn(3, 2, |x, y| Rgb([(y * 3 + x) as u8; 3]));
        let turned = |orientation: u8| -> (u32, Vec<u8>) {
            let picture = upright(stored.clone(), orientation);
            (picture.width(), picture.pixels().map(|pixel| pixel.0[0]).collect())
        };
        assert_eq!(turned(1), (3, vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(turned(2), (3, vec![2, 1, 0, 5, 4, 3]));
        assert_eq!(turned(3), (3, vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(4), (3, vec![3, 4, 5, 0, 1, 2]));
        assert_eq!(turned(5), (2, vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(turned(6), (2, vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(turned(7), (2, vec![5, 2, 4, 1, 3, 0]));
        assert_eq!(turned(8), (2, vec![2, 5, 1, 4, 0, 3]));
    }
}
