//! Tasks that fail. In: what became of leases, and whose they were. Out: how long a task rests before it is leased again, and which
//! are set aside. A task is set aside after so many failures in a row; a success wipes them out. One actor that fails at everything
//! while others live counts a quarter each time after the first: it shall not take the run's tasks from it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use hypereyes_domain::{ActorId, TaskId};

/// What a failure counts, and what the repetition of one by the same actor counts while others live.
const WHOLE: u32 = 4;
const REPEATED: u32 = 1;
/// Rest after the second failure in a row, doubled with each more; a moment's trouble shall not use up all tries.
const REST: Duration = Duration::from_secs(1);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Longest reason that is kept, in bytes.
const MOST_REASON: usize = 512;

/// Failures of tasks.
#[derive(Debug, Default)]
pub struct Trials {
    suspects: HashMap<TaskId, Suspect>,
    aside: BTreeMap<TaskId, String>,
}

#[derive(Debug, Default)]
struct Suspect {
    weight: u32,
    last: Option<ActorId>,
    rests_until: Option<Instant>,
}

impl Trials {
    /// A failure of a task; true where it is now set aside. `alone`: no other actor lives.
    pub fn failed(&mut self, task: &TaskId, actor: Option<&ActorId>, alone: bool, reason: &str, tries: u32, now: Instant) -> bool {
        let suspect = self.suspects.entry(task.clone()).or_default();
        let again = !alone && actor.is_some() && suspect.last.as_ref() == actor;
        suspect.weight = suspect.weight.saturating_add(if again { REPEATED } else { WHOLE });
        suspect.last = actor.cloned();
        if suspect.weight >= WHOLE.saturating_mul(tries) {
            self.suspects.remove(task);
            self.aside.insert(task.clone(), reason[..reason.floor_char_boundary(MOST_REASON)].to_owned());
            return true;
        }
        let before = suspect.weight.saturating_sub(1) / WHOLE;
        let rest = if before == 0 { Duration::ZERO } else { (REST * 2u32.saturating_pow(before - 1)).min(LONGEST_REST) };
        suspect.rests_until = Some(now + rest);
        false
    }

    /// Somebody did it.
    pub fn succeeded(&mut self, task: &TaskId) {
        self.suspects.remove(task);
    }

    /// Whether it has failed since it was last done.
    pub fn is_suspect(&self, task: &TaskId) -> bool {
        self.suspects.contains_key(task)
    }

    /// Whether it is too early to try again.
    pub fn rests(&self, task: &TaskId, now: Instant) -> bool {
        self.suspects.get(task).and_then(|suspect| suspect.rests_until).is_some_and(|until| now < until)
    }

    /// Whether it was set aside.
    pub fn is_aside(&self, task: &TaskId) -> bool {
        self.aside.contains_key(task)
    }

    /// Why it was set aside.
    pub fn aside(&self, task: &TaskId) -> Option<&str> {
        self.aside.get(task).map(String::as_str)
    }

    /// All that were, with the reasons.
    pub fn all_aside(&self) -> &BTreeMap<TaskId, String> {
        &self.aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_set_aside_and_a_success_wipes_them_out() {
        let (mut trials, task, now) = (Trials::default(), TaskId::from("t"), Instant::now());
        let actors: Vec<ActorId> = (0..9).map(|n| ActorId::new(format!("a{n}"))).collect();
        let fail = |trials: &mut Trials, at: usize| trials.failed(&task, Some(&actors[at]), false, "broken", 3, now);
        assert!(!fail(&mut trials, 0) && !trials.rests(&task, now), "the first may be chance");
        assert!(!fail(&mut trials, 1) && trials.rests(&task, now) && !trials.rests(&task, now + REST));
        trials.succeeded(&task);
        assert!(!fail(&mut trials, 0) && !fail(&mut trials, 1) && fail(&mut trials, 2));
        assert_eq!((trials.is_aside(&task), trials.aside(&task)), (true, Some("broken")));
    }

    #[test]
    fn one_broken_actor_among_others_takes_long_to_condemn_a_task_and_alone_it_does_not() {
        let (task, actor, now) = (TaskId::from("t"), ActorId::from("a"), Instant::now());
        let tries = |alone: bool| {
            let mut trials = Trials::default();
            1 + (0..1000).take_while(|_| !trials.failed(&task, Some(&actor), alone, "broken", 5, now)).count()
        };
        assert_eq!((tries(true), tries(false)), (5, 17));
    }
}
