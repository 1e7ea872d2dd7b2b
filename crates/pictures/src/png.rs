//! PNG beside its pixels. In: encoded bytes. Out: what the chunks before and after the pixels say, or that the file is cut
//! short. The pixels are the decoder's.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::orientation::Notes;

/// What ImageMagick called EXIF data before there was a chunk for it.
const RAW_EXIF: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";
/// Most bytes of text that are unpacked of a file; an EXIF record has at most 64 KiB, twice that as hexadecimal digits. What comes
/// after them says nothing: thousands of small chunks would unpack to gigabytes.
const MAX_TEXT: u64 = 4 << 20;

/// Walks over the chunks up to the one that ends a picture.
///
/// # Errors
/// Where the file ends too early.
pub(crate) fn walk(bytes: &[u8]) -> Result<Notes, String> {
    let mut notes = Notes::default();
    let (mut at, mut left) = (8, MAX_TEXT);
    loop {
        let cut = || format!("it ends after {} bytes, before its last chunk does", bytes.len());
        let header = bytes.get(at..at + 8).ok_or_else(cut)?;
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let data = bytes.get(at + 8..).and_then(|rest| rest.get(..length)).ok_or_else(cut)?;
        // The checksum; the decoder compares it.
        at = at + 8 + length + 4;
        if at > bytes.len() {
            return Err(cut());
        }
        match &header[4..8] {
            b"IEND" => return Ok(notes),
            b"eXIf" => notes.exif = data.to_vec(),
            kind @ (b"tEXt" | b"zTXt" | b"iTXt") => {
                if let Some((keyword, text)) = text(kind, data, left) {
                    left = left.saturating_sub(text.len() as u64);
                    match keyword {
                        XMP => notes.xmp = text,
                        RAW_EXIF if notes.exif.is_empty() => notes.exif = hexadecimal(&text).unwrap_or_default(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Keyword and text of a text chunk that may matter, up to `most` bytes; `None` of any other.
fn text<'a>(kind: &[u8], data: &'a [u8], most: u64) -> Option<(&'a [u8], Vec<u8>)> {
    let (keyword, rest) = after_zero(data)?;
    if most == 0 || ![RAW_EXIF, XMP].contains(&keyword) {
        return None;
    }
    let (packed, rest) = match kind {
        b"tEXt" => (false, rest),
        b"zTXt" => (true, rest.get(1..)?),
        _ => {
            // Flag and method, then the language and the translated keyword.
            let packed = *rest.first()? == 1;
            let (_, rest) = after_zero(rest.get(2..)?)?;
            (packed, after_zero(rest)?.1)
        }
    };
    let mut text = vec![];
    if packed {
        // What was unpacked before an error counts against the file, and is no text.
        if ZlibDecoder::new(rest).take(most).read_to_end(&mut text).is_err() {
            return Some((&data[..0], text));
        }
    } else {
        text.extend_from_slice(&rest[..rest.len().min(most as usize)]);
    }
    Some((keyword, text))
}

fn after_zero(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..at], &data[at + 1..]))
}

/// The bytes of such a profile: an empty line, a name, a length, and lines of hexadecimal digits.
fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.split(|byte| *byte == b'\n').skip(3).flatten().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.chunks(2).map(|pair| Some(value(*pair.first()?)? * 16 + value(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &[0; 4]].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [&[0x89][..], b"PNG\r\n\x1a\n", &chunks.concat()].concat()
    }

    const SIX: &[u8] = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";

    #[test]
    fn the_orientation_is_found_in_every_chunk_that_may_hold_it() {
        let end = chunk(b"IEND", b"");
        let digits: String = SIX.iter().map(|byte| format!("{byte:02x}")).collect();
        let profile = format!("\nexif\n      {}\n{}\n{}\n", SIX.len(), &digits[..20], &digits[20..]);
        let packed = |text: &[u8]| {
            let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
            encoder.write_all(text).expect("memory");
            encoder.finish().expect("memory")
        };
        let xmp = b"<x tiff:Orientation=\"6\"/>";
        for said in [
            chunk(b"eXIf", SIX),
            chunk(b"tEXt", &[RAW_EXIF, b"\0", profile.as_bytes()].concat()),
            chunk(b"zTXt", &[RAW_EXIF, b"\0\0", &packed(profile.as_bytes())].concat()),
            chunk(b"iTXt", &[XMP, b"\0\0\0\0\0", xmp].concat()),
            chunk(b"iTXt", &[XMP, b"\0\x01\0en\0name\0", &packed(xmp)].concat()),
        ] {
            let pixels = chunk(b"IDAT", b"...");
            for order in [[said.clone(), pixels.clone()], [pixels.clone(), said.clone()]] {
                let notes = walk(&file(&[order.concat(), end.clone()])).expect("whole");
                assert_eq!(notes.orientation(), 6, "{}", String::from_utf8_lossy(&said));
            }
        }
    }

    #[test]
    fn many_small_chunks_do_not_unpack_to_more_than_one_large_one() {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
        encoder.write_all(&vec![b'0'; 1 << 20]).expect("memory");
        let bomb = chunk(b"zTXt", &[RAW_EXIF, b"\0\0", &encoder.finish().expect("memory")].concat());
        let said = chunk(b"iTXt", &[XMP, b"\0\0\0\0\0", b"<x tiff:Orientation=\"6\"/>"].concat());
        let of = |bombs: usize| {
            let chunks: Vec<Vec<u8>> = std::iter::repeat_n(bomb.clone(), bombs).chain([said.clone(), chunk(b"IEND", b"")]).collect();
            walk(&file(&chunks)).expect("whole").orientation()
        };
        assert_eq!((of(3), of(4), of(2000)), (6, 1, 1));
    }

    #[test]
    fn every_cut_is_found_and_what_follows_is_not_looked_at() {
        let whole = file(&[chunk(b"IHDR", &[0; 13]), chunk(b"IDAT", b"..."), chunk(b"IEND", b"")]);
        for cut in 8..whole.len() {
            assert!(walk(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(walk(&[&whole[..], b"more"].concat()).is_ok());
        assert!(walk(&file(&[[&u32::MAX.to_be_bytes()[..], b"tEXt"].concat()])).is_err());
    }
}
