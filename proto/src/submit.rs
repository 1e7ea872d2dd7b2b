//! A finished group on its way to the learner: written once, sent until there is a receipt.
//!
//! In: a group, by value. Out: its bytes, which every try shares, and the learner's receipt. A group has hundreds of thousands of tokens,
//! so that to convert it anew for every try would cost more than the call.

use bytes::{BufMut as _, Bytes};
use hypereyes_domain::{DistilledGroup, GroupId};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::limits::MAX_MESSAGE_BYTES;
use crate::v1;
use crate::wire::PeerChannel;

/// A group as it travels. Clones share its bytes.
#[derive(Clone, Debug)]
pub struct Parcel {
    group: GroupId,
    bytes: Bytes,
}

impl From<DistilledGroup> for Parcel {
    fn from(taught: DistilledGroup) -> Self {
        let group = taught.scored.group.id.clone();
        Self { group, bytes: v1::TaughtGroup::from(taught).encode_to_vec().into() }
    }
}

impl Parcel {
    /// Whose bytes these are.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The message, encoded.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The learner's `Submit`, for bytes that are encoded already. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Submitter(Grpc<PeerChannel>);

impl From<PeerChannel> for Submitter {
    fn from(channel: PeerChannel) -> Self {
        Self(Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

impl Submitter {
    /// Sends the bytes once.
    ///
    /// # Errors
    /// What the learner or the connection says.
    pub async fn submit(&self, request: Request<Bytes>) -> Result<Response<v1::Receipt>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        grpc.unary(request, PathAndQuery::from_static("/hypereyes.v1.Learner/Submit"), Encoded).await
    }
}

/// Sends bytes as they are, reads a receipt.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = v1::Receipt;
    type Encoder = Self;
    type Decoder = <ProstCodec<v1::Receipt, v1::Receipt> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<v1::Receipt, v1::Receipt>::default().decoder()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn a_parcel_is_the_group() {
        let parcel = Parcel::from(samples::taught());
        assert_eq!(parcel.group(), &samples::taught().scored.group.id);
        let message = v1::TaughtGroup::decode(parcel.bytes().clone()).expect("it was just encoded");
        assert_eq!(DistilledGroup::try_from(message), Ok(samples::taught()));
    }
}
