//! Groups of rollouts, before scoring and after teaching.
//!
//! In: a group in a stage. Out: its message, and back; parts that do not fit together never come out.

use hypereyes_domain::{DistilledGroup, RolloutGroup, ScoredGroup, TeacherLogprobs, TeacherVersion};

use super::{Invalid, at_most, each, ids, present};
use crate::limits::{MAX_GROUP_SIZE, MAX_RESPONSE_TOKENS};
use crate::v1;

impl<R: Into<v1::Trajectory>> From<RolloutGroup<R>> for v1::RolloutGroup {
    fn from(group: RolloutGroup<R>) -> Self {
        Self {
            id: group.id.as_str().to_owned(),
            task_id: group.task.as_str().to_owned(),
            actor_id: group.actor.as_str().to_owned(),
            rollouts: group.rollouts.into_iter().map(Into::into).collect(),
        }
    }
}

impl<R: TryFrom<v1::Trajectory, Error = Invalid>> TryFrom<v1::RolloutGroup> for RolloutGroup<R> {
    type Error = Invalid;

    fn try_from(group: v1::RolloutGroup) -> Result<Self, Invalid> {
        if group.rollouts.is_empty() {
            return Err(Invalid::new("rollouts", "is empty"));
        }
        Ok(Self {
            id: ids::group("id", group.id)?,
            task: ids::task("task_id", group.task_id)?,
            actor: ids::actor("actor_id", group.actor_id)?,
            rollouts: each("rollouts", group.rollouts, MAX_GROUP_SIZE, R::try_from)?,
        })
    }
}

impl From<Option<TeacherLogprobs>> for v1::TeacherAnswer {
    fn from(answer: Option<TeacherLogprobs>) -> Self {
        match answer {
            Some(TeacherLogprobs { teacher, logprobs, top }) => {
                Self { given: true, teacher_id: teacher.id.as_str().to_owned(), teacher_epoch: teacher.revision, logprobs, top }
            }
            None => Self::default(),
        }
    }
}

impl TryFrom<v1::TeacherAnswer> for Option<TeacherLogprobs> {
    type Error = Invalid;

    fn try_from(answer: v1::TeacherAnswer) -> Result<Self, Invalid> {
        if answer.given {
            at_most("top", answer.top.len(), MAX_RESPONSE_TOKENS)?;
            let teacher = TeacherVersion { id: ids::teacher("teacher_id", answer.teacher_id)?, revision: answer.teacher_epoch };
            return Ok(Some(TeacherLogprobs { teacher, logprobs: answer.logprobs, top: answer.top }));
        }
        if !answer.logprobs.is_empty() || !answer.top.is_empty() {
            return Err(Invalid::new("logprobs", "are there although no answer is given"));
        }
        Ok(None)
    }
}

impl From<DistilledGroup> for v1::TaughtGroup {
    fn from(taught: DistilledGroup) -> Self {
        Self { scored: Some(taught.scored.into()), teacher: taught.teacher.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::TaughtGroup> for DistilledGroup {
    type Error = Invalid;

    fn try_from(taught: v1::TaughtGroup) -> Result<Self, Invalid> {
        let scored = ScoredGroup::try_from(present("scored", taught.scored)?).map_err(|invalid| invalid.within("scored"))?;
        let teacher = each("teacher", taught.teacher, MAX_GROUP_SIZE, Option::<TeacherLogprobs>::try_from)?;
        DistilledGroup::new(scored, teacher).map_err(|error| Invalid::new("teacher", format!("does not fit: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Route, Trajectory};
    use prost::Message as _;

    use super::*;
    use crate::convert::samples;
    use crate::limits::{MAX_ID_BYTES, MAX_MESSAGE_BYTES};

    #[test]
    fn rollout_groups_survive_the_wire() {
        let group = samples::group();
        assert_eq!(RolloutGroup::try_from(v1::RolloutGroup::from(group.clone())), Ok(group));
    }

    #[test]
    fn taught_groups_survive_encoding() {
        let taught = samples::taught();
        let bytes = v1::TaughtGroup::from(taught.clone()).encode_to_vec();
        let back = v1::TaughtGroup::decode(bytes.as_slice()).expect("it was just encoded");
        assert_eq!(DistilledGroup::try_from(back), Ok(taught));
    }

    #[test]
    fn broken_groups_are_rejected_by_name() {
        let good = v1::RolloutGroup::from(samples::group());
        let cases = [
            ("id", v1::RolloutGroup { id: "x".repeat(MAX_ID_BYTES + 1), ..good.clone() }),
            ("task_id", v1::RolloutGroup { task_id: String::new(), ..good.clone() }),
            ("actor_id", v1::RolloutGroup { actor_id: "a\tb".into(), ..good.clone() }),
            ("rollouts", v1::RolloutGroup { rollouts: vec![], ..good.clone() }),
            ("rollouts", v1::RolloutGroup { rollouts: vec![v1::Trajectory::default(); MAX_GROUP_SIZE + 1], ..good.clone() }),
        ];
        for (what, group) in cases {
            assert_eq!(<RolloutGroup>::try_from(group).expect_err(what).what, what);
        }
        let mut deep = good;
        deep.rollouts[1].mask = None;
        assert_eq!(<RolloutGroup>::try_from(deep).expect_err("no mask").what, "rollouts[1].mask");
    }

    #[test]
    fn teacher_answers_must_fit_routes_and_lengths() {
        let taught = samples::taught();
        let distilled = taught.scored.scores.iter().position(|score| score.route == Route::Distill).expect("one rollout failed");
        let good = v1::TaughtGroup::from(taught);
        let mut short = good.clone();
        short.teacher[distilled].logprobs.pop();
        let mut nan = good.clone();
        nan.teacher[distilled].logprobs[0] = f32::NAN;
        let mut misrouted = good.clone();
        misrouted.teacher.swap(0, distilled);
        let mut few = good.clone();
        few.teacher.pop();
        for (name, group) in [("short", short), ("nan", nan), ("misrouted", misrouted), ("few", few)] {
            assert_eq!(DistilledGroup::try_from(group).expect_err(name).what, "teacher", "{name}");
        }
        let mut unnamed = good.clone();
        unnamed.teacher[distilled].teacher_id.clear();
        assert_eq!(DistilledGroup::try_from(unnamed).expect_err("unnamed").what, format!("teacher[{distilled}].teacher_id"));
        assert_eq!(DistilledGroup::try_from(v1::TaughtGroup { scored: None, ..good }).expect_err("bare").what, "scored");
    }

    #[test]
    fn garbage_never_panics() {
        // A cheap generator is enough: what matters is that cut and flipped messages are errors, not panics.
        let bytes = v1::TaughtGroup::from(samples::taught()).encode_to_vec();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut mutant = bytes.clone();
            let at = (state >> 33) as usize % mutant.len();
            mutant[at] ^= (state >> 20) as u8;
            mutant.truncate(mutant.len() - (state >> 55) as usize % 2 * at);
            if let Ok(message) = v1::TaughtGroup::decode(mutant.as_slice())
                && let Ok(group) = DistilledGroup::try_from(message)
            {
                group.check().expect("what is let in is sound");
            }
        }
    }

    #[test]
    fn a_large_honest_group_fits_one_message() {
        let one = samples::trajectory();
        let repeat = 8192 / one.response.len();
        let long = Trajectory {
            response: one.response.repeat(repeat),
            mask: one.mask.repeat(repeat),
            logprobs: one.logprobs.repeat(repeat),
            versions: one.versions.repeat(repeat),
            ..one
        };
        let group = RolloutGroup { rollouts: vec![long; 64], ..samples::group() };
        assert!(v1::RolloutGroup::from(group).encoded_len() < MAX_MESSAGE_BYTES / 4);
    }
}
