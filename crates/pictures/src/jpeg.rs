//! JPEG: what stands between its markers, and its pixels. In: encoded bytes. Out: whether the file is whole, what it says
//! beside its pixels, and the pixels. Stricter than most decoders, which fill up what is missing with grey.

use image::RgbImage;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::orientation::Notes;

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Walks over the markers up to the end of the (first) picture. What follows it is not looked at: cameras put more there.
///
/// # Errors
/// Where the file ends too early.
pub(crate) fn walk(bytes: &[u8]) -> Result<Notes, String> {
    let cut = |what: &str| format!("it ends after {} bytes {what}", bytes.len());
    let mut notes = Notes::default();
    let mut at = 2;
    loop {
        // To the next marker: 0xFF, any number of them, and a byte that is neither 0xFF nor 0.
        while at < bytes.len() && bytes[at] != 0xFF {
            at += 1;
        }
        while at < bytes.len() && bytes[at] == 0xFF {
            at += 1;
        }
        let marker = *bytes.get(at).ok_or_else(|| cut("without the marker that ends a picture"))?;
        at += 1;
        match marker {
            0xD9 => return Ok(notes),
            // A stuffed byte of the entropy-coded data, and markers without a segment.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let length = bytes.get(at..at + 2).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
                let segment = length.filter(|length| *length >= 2).and_then(|length| bytes.get(at + 2..at + length));
                let segment = segment.ok_or_else(|| cut("within a segment"))?;
                if marker == 0xE1
                    && let Some(more) = segment.strip_prefix(EXIF)
                {
                    notes.exif.extend_from_slice(more);
                } else if marker == 0xE1
                    && let Some(packet) = segment.strip_prefix(XMP)
                    && notes.xmp.is_empty()
                {
                    notes.xmp.extend_from_slice(packet);
                }
                at += 2 + segment.len();
            }
        }
    }
}

/// A decoder that knows the picture's size and has not made any pixel.
pub(crate) struct Jpeg<'a> {
    decoder: JpegDecoder<ZCursor<&'a [u8]>>,
    /// Width and height.
    pub(crate) size: (u32, u32),
}

impl<'a> Jpeg<'a> {
    /// Reads the headers.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let options = DecoderOptions::default().set_strict_mode(true).set_max_width(usize::MAX).set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(|error| format!("{error:?}"))?;
        let (width, height) = decoder.dimensions().ok_or("it has no size")?;
        let side = |side: usize| u32::try_from(side).map_err(|error| error.to_string());
        let size = (side(width)?, side(height)?);
        // Grey stays grey here: one byte a pixel instead of three.
        let wanted = if decoder.input_colorspace() == Some(ColorSpace::Luma) { ColorSpace::Luma } else { ColorSpace::RGB };
        decoder.set_options(options.jpeg_set_out_colorspace(wanted));
        Ok(Self { decoder, size })
    }

    /// The pixels.
    pub(crate) fn decode(mut self) -> Result<RgbImage, String> {
        let data = self.decoder.decode().map_err(|error| format!("{error:?}"))?;
        let (width, height) = self.size;
        let pixels = width as usize * height as usize;
        let data = if data.len() == pixels { data.iter().flat_map(|grey| [*grey; 3]).collect() } else { data };
        RgbImage::from_raw(width, height, data).filter(|image| image.as_raw().len() == pixels * 3).ok_or_else(|| "it lacks pixels".into())
    }
}
