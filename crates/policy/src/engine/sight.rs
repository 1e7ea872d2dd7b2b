//! Pictures on their way into the engine. In: chunks that name pictures. Out: the same with patches, or why a picture cannot be
//! shown. Cutting happens here, beside the engine's thread and beside whoever waits for it.

use std::sync::Arc;

use hypereyes_domain::{Chunk, Failure, GenerateError};
use hypereyes_pictures::{PatchSource, Patches};

use super::metrics;

/// Tokens to feed, with the pictures whose placeholders are among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    pub(super) tokens: Vec<u32>,
    pub(super) pictures: Vec<Arc<Patches>>,
}

/// Where an engine's pictures are found; nowhere by default.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight(Option<PatchSource>);

impl Sight {
    pub(super) fn of(source: PatchSource) -> Self {
        Self(Some(source))
    }

    /// What a chunk names, as the tower reads it. A picture that nobody has is a failure of whoever named it.
    pub(super) async fn input(&self, Chunk { tokens, pictures: named }: Chunk) -> Result<Input, GenerateError> {
        if named.is_empty() {
            return Ok(Input { tokens, pictures: vec![] });
        }
        let refused = |message: String| {
            metrics::failed(Failure::Infrastructure);
            GenerateError { failure: Failure::Infrastructure, message }
        };
        let Some(source) = &self.0 else {
            return Err(refused(format!("{} pictures are named, and this engine was given none to find them among", named.len())));
        };
        if let Some(pictures) = source.held(&named) {
            return Ok(Input { tokens, pictures });
        }
        let source = source.clone();
        let cut = tokio::task::spawn_blocking(move || source.patches(&named)).await;
        match cut {
            Ok(Ok(pictures)) => Ok(Input { tokens, pictures }),
            Ok(Err(missing)) => Err(refused(missing.to_string())),
            Err(died) => Err(refused(format!("a picture could not be cut: {died}"))),
        }
    }
}
