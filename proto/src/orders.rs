//! What rank 0 of a training job tells the others, as bytes: their connections carry no gRPC.

use bytes::Bytes;
use hypereyes_domain::{DistilledGroup, PictureId, PolicyVersion};
use prost::Message;

use crate::convert::{Invalid, each, finite, ids, present};
use crate::limits::MAX_BATCH_GROUPS;
use crate::v1;

/// What every rank does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Train on a batch.
    Step {
        /// Learning rate.
        lr: f64,
        /// Version of the policy before the step.
        version: PolicyVersion,
        /// The batch, whole.
        groups: Vec<DistilledGroup>,
        /// Encoded pictures that it mentions, each once.
        pictures: Vec<(PictureId, Bytes)>,
    },
    /// Bring the optimiser's state together.
    Moments,
    /// Nothing yet.
    Wait,
    /// The run is over.
    End,
}

impl Order {
    /// For sending. By value: a batch is large, and nobody needs it twice.
    pub fn into_bytes(self) -> Vec<u8> {
        use v1::rank_order::Order as Wire;
        let order = match self {
            Self::Step { lr, version, groups, pictures } => Wire::Step(v1::StepOrder {
                lr,
                version: version.0,
                groups: groups.into_iter().map(Into::into).collect(),
                pictures: pictures.into_iter().map(|(id, data)| v1::Picture { id: id.to_string(), data }).collect(),
            }),
            Self::Moments => Wire::Moments(v1::MomentsOrder {}),
            Self::Wait => Wire::Wait(v1::WaitOrder {}),
            Self::End => Wire::End(v1::EndOrder {}),
        };
        v1::RankOrder { order: Some(order) }.encode_to_vec()
    }

    /// From what was sent.
    ///
    /// # Errors
    /// [`Invalid`] names the field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        use v1::rank_order::Order as Wire;
        let message = v1::RankOrder::decode(bytes).map_err(|error| Invalid::new("order", format!("cannot be read: {error}")))?;
        Ok(match present("order", message.order)? {
            Wire::Step(step) => Self::Step {
                lr: finite("lr", step.lr)?,
                version: PolicyVersion(step.version),
                groups: each("groups", step.groups, MAX_BATCH_GROUPS, DistilledGroup::try_from)?,
                pictures: each("pictures", step.pictures, usize::MAX, |picture| Ok((ids::picture("id", picture.id)?, picture.data)))?,
            },
            Wire::Moments(_) => Self::Moments,
            Wire::Wait(_) => Self::Wait,
            Wire::End(_) => Self::End,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn orders_are_read_back() {
        let group = samples::taught();
        let pictures = vec![(group.scored.group.rollouts[0].pictures[0].clone(), Bytes::from_static(b"png"))];
        let step = Order::Step { lr: 1e-6, version: PolicyVersion(7), groups: vec![group], pictures };
        for order in [step, Order::Moments, Order::Wait, Order::End] {
            assert_eq!(Order::from_bytes(&order.clone().into_bytes()).unwrap(), order);
        }
    }

    #[test]
    fn nonsense_is_named() {
        assert!(Order::from_bytes(b"\xff\xff").unwrap_err().to_string().contains("order"));
        assert_eq!(Order::from_bytes(b"").unwrap_err().to_string(), "order is missing");
        let bytes = v1::RankOrder { order: Some(v1::rank_order::Order::Step(v1::StepOrder { lr: f64::NAN, ..Default::default() })) };
        assert_eq!(Order::from_bytes(&bytes.encode_to_vec()).unwrap_err().to_string(), "lr is NaN");
    }
}
