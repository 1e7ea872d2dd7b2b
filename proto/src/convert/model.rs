//! What a registry of teachers holds, on the wire and off it.

use hypereyes_domain::{ModelCard, ModelInfo, ModelState, Promotion, Roster};

use super::{Invalid, at_most, each, ids};
use crate::limits::{DIGEST_HEX, MAX_DETAIL_BYTES, MAX_ROSTER, MAX_SOURCE_BYTES};
use crate::v1;

impl From<ModelCard> for v1::ModelCard {
    fn from(card: ModelCard) -> Self {
        let ModelCard { digest, vocabulary, parameters, bytes, sighted } = card;
        Self { digest, vocabulary, parameters, bytes, sighted }
    }
}

impl TryFrom<v1::ModelCard> for ModelCard {
    type Error = Invalid;

    fn try_from(card: v1::ModelCard) -> Result<Self, Invalid> {
        let v1::ModelCard { digest, vocabulary, parameters, bytes, sighted } = card;
        at_most("digest", digest.len(), DIGEST_HEX)?;
        at_most("vocabulary", vocabulary.len(), DIGEST_HEX)?;
        Ok(Self { digest, vocabulary, parameters, bytes, sighted })
    }
}

impl From<ModelInfo> for v1::ModelInfo {
    fn from(info: ModelInfo) -> Self {
        let (state, detail) = match info.state {
            ModelState::Loading => (v1::ModelState::Loading, String::new()),
            ModelState::Ready => (v1::ModelState::Ready, String::new()),
            ModelState::Active => (v1::ModelState::Active, String::new()),
            ModelState::Retiring => (v1::ModelState::Retiring, String::new()),
            ModelState::Retired => (v1::ModelState::Retired, String::new()),
            ModelState::Failed(reason) => (v1::ModelState::Failed, reason),
        };
        Self {
            id: info.id.as_str().to_owned(),
            source: info.source,
            state: state.into(),
            detail: detail[..detail.floor_char_boundary(MAX_DETAIL_BYTES)].to_owned(),
            in_flight: info.in_flight,
            pinned: info.pinned,
            card: info.card.map(Into::into),
        }
    }
}

impl TryFrom<v1::ModelInfo> for ModelInfo {
    type Error = Invalid;

    fn try_from(info: v1::ModelInfo) -> Result<Self, Invalid> {
        let state = match info.state() {
            v1::ModelState::Loading => ModelState::Loading,
            v1::ModelState::Ready => ModelState::Ready,
            v1::ModelState::Active => ModelState::Active,
            v1::ModelState::Retiring => ModelState::Retiring,
            v1::ModelState::Retired => ModelState::Retired,
            v1::ModelState::Failed => ModelState::Failed(info.detail),
            v1::ModelState::Unspecified => return Err(Invalid::new("state", "is not said")),
        };
        at_most("source", info.source.len(), MAX_SOURCE_BYTES)?;
        Ok(Self {
            id: ids::teacher("id", info.id)?,
            source: info.source,
            state,
            card: info.card.map(ModelCard::try_from).transpose().map_err(|invalid| invalid.within("card"))?,
            in_flight: info.in_flight,
            pinned: info.pinned,
        })
    }
}

impl From<Promotion> for v1::Promotion {
    fn from(promotion: Promotion) -> Self {
        let previous = promotion.previous.map_or_else(String::new, |id| id.as_str().to_owned());
        Self { epoch: promotion.revision, id: promotion.id.as_str().to_owned(), previous, at: promotion.at }
    }
}

impl TryFrom<v1::Promotion> for Promotion {
    type Error = Invalid;

    fn try_from(promotion: v1::Promotion) -> Result<Self, Invalid> {
        let previous = (!promotion.previous.is_empty()).then(|| ids::teacher("previous", promotion.previous)).transpose()?;
        Ok(Self { revision: promotion.epoch, id: ids::teacher("id", promotion.id)?, previous, at: promotion.at })
    }
}

impl From<Roster> for v1::ListModelsReply {
    fn from(roster: Roster) -> Self {
        Self { models: roster.models.into_iter().map(Into::into).collect(), history: roster.history.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::ListModelsReply> for Roster {
    type Error = Invalid;

    fn try_from(reply: v1::ListModelsReply) -> Result<Self, Invalid> {
        Ok(Self {
            models: each("models", reply.models, MAX_ROSTER, ModelInfo::try_from)?,
            history: each("history", reply.history, MAX_ROSTER, Promotion::try_from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosters_survive_the_wire() {
        let card = ModelCard { digest: "ab".repeat(32), vocabulary: "cd".repeat(32), parameters: 7, bytes: 28, sighted: true };
        let model = |id: &str, state, card| ModelInfo { id: id.into(), source: "/m".into(), state, card, in_flight: 2, pinned: 1 };
        let roster = Roster {
            models: vec![model("a", ModelState::Active, Some(card)), model("b", ModelState::Failed("no such folder".into()), None)],
            history: vec![Promotion { revision: 1, id: "a".into(), previous: None, at: 5 }],
        };
        assert_eq!(Roster::try_from(v1::ListModelsReply::from(roster.clone())), Ok(roster));
        let stateless = v1::ListModelsReply { models: vec![v1::ModelInfo { id: "a".into(), ..Default::default() }], history: vec![] };
        assert_eq!(Roster::try_from(stateless).expect_err("no state").what, "models[0].state");
    }
}
