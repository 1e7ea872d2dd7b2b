//! Pictures, everything about them that needs no tensor.
//!
//! In: encoded bytes from outside, areas that a policy named, a checkpoint's picture settings. Out: decoded
//! pictures within limits, upright, crops (docs/spec.md#crops), normalised patches in the reference processor's order, a bounded
//! content-addressed store, and a bounded cache of patches for whoever has a vision tower. This crate knows no token, no world and no
//! network.

pub mod crop;
pub mod decode;
mod jpeg;
pub mod metrics;
mod orientation;
pub mod patch_cache;
pub mod patches;
mod png;
pub mod processor;
pub mod resize;
mod settings;
pub mod shelf;
pub mod source;
pub mod store;

pub use crop::crop;
pub use decode::{Limits, Picture, PictureError, decode, encode_png, picture_id, size};
pub use image::RgbImage;
pub use patch_cache::PatchCache;
pub use patches::Patches;
pub use processor::{Loaded, Processor, ProcessorError};
pub use resize::{Filter, resize};
pub use shelf::{Kept, Pins, Shelf, ShelfError};
pub use source::{MissingPictures, PatchSource};
pub use store::{Store, StoreError};
