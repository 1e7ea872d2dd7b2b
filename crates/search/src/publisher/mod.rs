//! Crops where services can fetch them. In: a picture that a service is about to be asked about. Out: an address that leads to it for a
//! while.
//!
//! It is off until settings name it, since it shows pictures of users to whoever has their address. It is asked right before a request is
//! paid for and sent, after what is kept and what may be spent was looked at: nothing is published that no service asks for, and nothing in
//! a replay. A crop's name is the hash of its encoded bytes, so that equal crops have one address.

mod config;
mod s3;
mod serve;

use bytes::Bytes;
use hypereyes_pictures::{Filter, RgbImage, encode_png, resize};

use crate::metrics::PUBLISHED;

pub use config::{PublisherConfig, PublisherKind};

/// Longest side of what is published, in pixels: what the reference sends (docs/spec.md#search-services).
const MOST_SIDE: u32 = 1024;
/// What is published, as HTTP calls it.
const TYPE: &str = "image/png";

/// A crop, encoded.
#[derive(Clone, Debug)]
pub struct Crop {
    /// Its name: BLAKE3 of the bytes, as hexadecimal digits, and what kind of file it is.
    name: String,
    bytes: Bytes,
}

impl Crop {
    /// Encodes a picture, a larger one made smaller. It takes milliseconds: not for the runtime's threads.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn of(picture: &RgbImage) -> Result<Self, String> {
        let (width, height) = picture.dimensions();
        let longest = width.max(height);
        let side = |side: u32| (u64::from(side) * u64::from(MOST_SIDE) / u64::from(longest)).max(1) as u32;
        let smaller = (longest > MOST_SIDE).then(|| resize(picture, side(width), side(height), Filter::Lanczos));
        let bytes = encode_png(smaller.as_ref().unwrap_or(picture)).map_err(|error| error.to_string())?;
        Ok(Self { name: format!("{}.png", blake3::hash(&bytes).to_hex()), bytes })
    }
}

/// Puts crops where they can be fetched.
pub struct Publisher(How);

enum How {
    S3(s3::Bucket),
    Serve(serve::Here),
}

impl Publisher {
    /// Opens what settings that were checked name; none where they name none. It calls nobody; `serve` takes its port.
    ///
    /// # Errors
    /// A sentence that begins with the key within `search`.
    pub fn open(config: &PublisherConfig) -> Result<Option<Self>, String> {
        Ok(match config.kind {
            PublisherKind::None => None,
            PublisherKind::S3 => Some(Self(How::S3(s3::Bucket::open(config)?))),
            PublisherKind::Serve => Some(Self(How::Serve(serve::Here::open(config)?))),
        })
    }

    /// An address that leads to a crop from now on, as long as settings say.
    ///
    /// # Errors
    /// Why it cannot be published, in words without a key and without a signed address.
    pub async fn address(&self, crop: &Crop) -> Result<String, String> {
        let published = match &self.0 {
            How::S3(bucket) => bucket.address(crop).await,
            How::Serve(here) => here.address(crop),
        };
        let outcome = if published.is_ok() { "ok" } else { "failed" };
        metrics::counter!(PUBLISHED, "outcome" => outcome).increment(1);
        published.map_err(|why| format!("the crop cannot be published: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_crops_have_one_name_and_large_ones_are_made_smaller() {
        let picture = RgbImage::from_fn(3000, 10, |x, y| [x as u8, y as u8, 7].into());
        let (one, other) = (Crop::of(&picture).expect("encodes"), Crop::of(&picture.clone()).expect("encodes"));
        assert_eq!((one.name.len(), &one.name), (64 + 4, &other.name));
        let back = hypereyes_pictures::decode(&one.bytes, &hypereyes_pictures::Limits::default()).expect("PNG");
        assert_eq!(back.dimensions(), (1024, 3));
        assert_ne!(Crop::of(&RgbImage::new(3, 3)).expect("encodes").name, one.name);
    }
}
