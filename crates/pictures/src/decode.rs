//! Encoded bytes in, an RGB picture within limits out; and back to PNG. Nothing is allocated before the header's
//! dimensions are known to be acceptable. Knows nothing of where the bytes came from.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use hypereyes_domain::PictureId;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Rgb, RgbImage, RgbaImage};
use serde::{Deserialize, Serialize};

use crate::jpeg::{self, Jpeg};
use crate::metrics::REFUSED;
use crate::orientation::{self, Notes};
use crate::png;

/// Sizes beyond which a picture is refused.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Encoded bytes. Default 32 MiB: larger uploads are mistakes.
    pub max_bytes: usize,
    /// Longer side in pixels. Default 16384: the widest that panorama cameras write.
    pub max_side: u32,
    /// Width times height. Default 32 Mi pixels (96 MiB decoded): photographs pass, decompression bombs do not.
    pub max_pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_side: 16384, max_pixels: 32 << 20 }
    }
}

/// Why bytes did not become a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// More encoded bytes than allowed.
    #[error("picture of {bytes} bytes exceeds the limit of {limit} bytes; send a smaller one or raise max_bytes")]
    Bytes {
        /// Encoded size.
        bytes: usize,
        /// `Limits::max_bytes`.
        limit: usize,
    },
    /// Zero sides, or larger than allowed.
    #[error(
        "picture of {width}x{height} pixels is outside the limits (sides 1..={max_side}, at most {max_pixels} pixels); \
         scale it down or raise max_side and max_pixels"
    )]
    Size {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// `Limits::max_side`.
        max_side: u32,
        /// `Limits::max_pixels`.
        max_pixels: u64,
    },
    /// Neither PNG nor JPEG.
    #[error("the bytes are neither PNG nor JPEG; convert the picture to one of them")]
    Format,
    /// The data is damaged.
    #[error("the picture cannot be decoded ({0}); it is damaged or cut short")]
    Broken(String),
    /// Writing PNG failed.
    #[error("a {width}x{height} picture cannot be written as PNG: {reason}")]
    Encode {
        /// Width of the picture.
        width: u32,
        /// Height of the picture.
        height: u32,
        /// What the encoder says.
        reason: String,
    },
}

impl PictureError {
    /// The `reason` label of the refusal counter.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Bytes { .. } => "bytes",
            Self::Size { .. } => "size",
            Self::Format => "format",
            Self::Broken(_) => "broken",
            Self::Encode { .. } => "encode",
        }
    }
}

/// A picture with the bytes it came as. Cheap to clone: bytes and pixels are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// BLAKE3 of `bytes`.
    pub id: PictureId,
    /// As encoded by whoever made it.
    pub bytes: Bytes,
    /// Decoded, turned upright, alpha laid on white.
    pub image: Arc<RgbImage>,
}

impl Picture {
    /// Decodes and names `bytes`.
    pub fn from_bytes(bytes: Bytes, limits: &Limits) -> Result<Self, PictureError> {
        let image = Arc::new(decode(&bytes, limits)?);
        Ok(Self { id: picture_id(&bytes), bytes, image })
    }

    /// Encoded bytes for readers that take pixels as they are stored: those that it came as, or a PNG where these say that the
    /// picture is to be turned.
    pub fn upright_bytes(&self) -> Result<Bytes, PictureError> {
        if format(&self.bytes).and_then(|format| notes(format, &self.bytes))?.orientation() == 1 {
            return Ok(self.bytes.clone());
        }
        encode_png(&self.image)
    }

    /// Encodes `image` as PNG and names the result.
    pub fn from_image(image: impl Into<Arc<RgbImage>>) -> Result<Self, PictureError> {
        let image = image.into();
        let bytes = encode_png(&image)?;
        Ok(Self { id: picture_id(&bytes), bytes, image })
    }
}

/// The name of encoded bytes: 64 hex digits of BLAKE3.
pub fn picture_id(bytes: &[u8]) -> PictureId {
    PictureId::new(blake3::hash(bytes).to_hex().as_str())
}

/// Decodes PNG or JPEG to a picture that stands upright (EXIF orientation); transparent parts become white (docs/spec.md#pictures). A file
/// that is cut short or damaged is none, even where a decoder could fill it up. A refusal is counted by reason.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, PictureError> {
    decode_inner(bytes, limits).inspect_err(|error| metrics::counter!(REFUSED, "reason" => error.label()).increment(1))
}

/// Width and height as the header of a PNG or JPEG says, within limits; no pixel is made. A refusal is counted by reason.
pub fn size(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), PictureError> {
    size_inner(bytes, limits).inspect_err(|error| metrics::counter!(REFUSED, "reason" => error.label()).increment(1))
}

fn size_inner(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), PictureError> {
    if bytes.len() > limits.max_bytes {
        return Err(PictureError::Bytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let size = match format(bytes)? {
        ImageFormat::Jpeg => Jpeg::open(bytes).map_err(PictureError::Broken)?.size,
        _ => ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png).into_decoder().map_err(broken)?.dimensions(),
    };
    check(size, limits)?;
    Ok(size)
}

fn decode_inner(bytes: &[u8], limits: &Limits) -> Result<RgbImage, PictureError> {
    if bytes.len() > limits.max_bytes {
        return Err(PictureError::Bytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let format = format(bytes)?;
    let picture = match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, limits)?,
        _ => decode_png(bytes, limits)?,
    };
    Ok(orientation::upright(picture, notes(format, bytes)?.orientation()))
}

fn format(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => Ok(format),
        _ => Err(PictureError::Format),
    }
}

/// What the file says beside its pixels; only a whole file says it.
fn notes(format: ImageFormat, bytes: &[u8]) -> Result<Notes, PictureError> {
    match format {
        ImageFormat::Jpeg => jpeg::walk(bytes),
        _ => png::walk(bytes),
    }
    .map_err(PictureError::Broken)
}

fn decode_jpeg(bytes: &[u8], limits: &Limits) -> Result<RgbImage, PictureError> {
    let jpeg = Jpeg::open(bytes).map_err(PictureError::Broken)?;
    check(jpeg.size, limits)?;
    // What is missing at the very end is no error to the decoder.
    jpeg::walk(bytes).map_err(PictureError::Broken)?;
    jpeg.decode().map_err(PictureError::Broken)
}

fn decode_png(bytes: &[u8], limits: &Limits) -> Result<RgbImage, PictureError> {
    // The decoder's own limit guards its buffers: 8 bytes a pixel (16-bit RGBA), twice for working room.
    let mut guard = image::Limits::default();
    guard.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(16 << 20));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    reader.limits(guard);
    let decoder = reader.into_decoder().map_err(broken)?;
    check(decoder.dimensions(), limits)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(if picture.color().has_alpha() { on_white(&picture.into_rgba8()) } else { picture.into_rgb8() })
}

fn check((width, height): (u32, u32), limits: &Limits) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width.min(height) == 0 || width.max(height) > limits.max_side || pixels > limits.max_pixels {
        return Err(PictureError::Size { width, height, max_side: limits.max_side, max_pixels: limits.max_pixels });
    }
    Ok(())
}

/// Lossless bytes of a picture, fast rather than small: they cross one wire and rest in a bounded store.
pub fn encode_png(image: &RgbImage) -> Result<Bytes, PictureError> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8)
        .map_err(|error| PictureError::Encode { width: image.width(), height: image.height(), reason: error.to_string() })?;
    Ok(Bytes::from(bytes))
}

fn on_white(picture: &RgbaImage) -> RgbImage {
    let mut out = RgbImage::new(picture.width(), picture.height());
    for (to, from) in out.pixels_mut().zip(picture.pixels()) {
        let [r, g, b, alpha] = from.0;
        let mix = |value: u8| {
            let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
            u8::try_from((sum + 127) / 255).expect("a weighted mean of bytes is a byte")
        };
        *to = Rgb([mix(r), mix(g), mix(b)]);
    }
    out
}

fn broken(error: image::ImageError) -> PictureError {
    PictureError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = encode_png(&RgbImage::from_pixel(2, 2, Rgb([1, 2, 3]))).expect("a 2x2 picture encodes").to_vec();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn crc32(data: &[u8]) -> u32 {
        !data.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn a_huge_header_is_one_clear_error() {
        let error = decode(&png_of(100_000, 100_000), &Limits::default()).expect_err("too large");
        let text = error.to_string();
        assert!(matches!(error, PictureError::Size { width: 100_000, height: 100_000, .. }), "{text}");
        assert!(text.contains("100000x100000") && text.contains("16384"), "{text}");
        assert!(matches!(size(&png_of(100_000, 100_000), &Limits::default()), Err(PictureError::Size { .. })));
        assert_eq!(size(&png_of(3000, 2000), &Limits::default()).expect("the header is whole"), (3000, 2000));
    }

    #[test]
    fn png_survives_the_round_trip_and_its_name_is_its_hash() {
        let image = RgbImage::from_fn(7, 5, |x, y| Rgb([x as u8 * 30, y as u8 * 40, 9]));
        let picture = Picture::from_image(image.clone()).expect("encodes");
        assert_eq!(decode(&picture.bytes, &Limits::default()).expect("decodes"), image);
        assert_eq!(picture.id.as_str().len(), 64);
        assert_eq!(picture.id, picture_id(&picture.bytes));
    }

    #[test]
    fn transparency_lies_on_white() {
        let picture = RgbaImage::from_raw(3, 1, vec![10, 20, 30, 0, 10, 20, 30, 255, 0, 0, 0, 128]).expect("3 pixels");
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).expect("encodes");
        let image = decode(bytes.get_ref(), &Limits::default()).expect("decodes");
        assert_eq!(image.as_raw(), &[255, 255, 255, 10, 20, 30, 127, 127, 127]);
    }

    #[test]
    fn what_is_no_picture_is_refused_without_panic() {
        let limits = Limits { max_bytes: 100, ..Limits::default() };
        assert!(matches!(decode(b"GIF89a....", &limits), Err(PictureError::Format)));
        assert!(matches!(decode(&[0; 101], &limits), Err(PictureError::Bytes { bytes: 101, limit: 100 })));
        let whole = png_of(2, 2);
        for cut in 0..whole.len() {
            let _ = decode(&whole[..cut], &limits);
        }
        assert!(matches!(decode(&whole[..40], &limits), Err(PictureError::Broken(_))));
    }
}
