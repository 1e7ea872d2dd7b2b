//! Which step is measured next. In: the newest version of the learner, now and then. Out: the step that is due, with those before it
//! whose turn has passed. It knows no learner and measures nothing.

/// Steps that are to be measured: multiples of a number, from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    every: u64,
    /// Steps from this one on are measured by somebody else.
    last: Option<u64>,
    /// The first step that has not had its turn.
    next: u64,
    /// Of the learner that was seen last.
    incarnation: Option<u32>,
}

/// A step whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The step.
    pub step: u64,
    /// How many before it were to be measured and now will not be.
    pub passed: u64,
}

/// What is measured in the place of a step that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandsIn {
    /// The newest version.
    Newest,
    /// None now: a step is due itself, or will be.
    Another,
    /// None.
    Nobody,
}

impl Schedule {
    /// Every so many steps, from `next` on, which need not be a multiple.
    pub fn new(every: u64, last: Option<u64>, next: u64) -> Self {
        let every = every.max(1);
        Self { every, last, next: next.div_ceil(every).saturating_mul(every), incarnation: None }
    }

    /// The step that is due when `newest` is the newest version of a learner of this incarnation: the latest multiple that it has reached.
    /// A learner that went back to a checkpoint takes steps again, and those are due again.
    pub fn due(&mut self, newest: u64, incarnation: u32) -> Option<Due> {
        if self.incarnation.replace(incarnation) != Some(incarnation) {
            self.next = self.next.min(newest.div_ceil(self.every).saturating_mul(self.every));
        }
        let step = self.reached(newest);
        if step < self.next || self.last == Some(0) {
            return None;
        }
        let passed = (step - self.next) / self.every;
        self.next = step.saturating_add(self.every);
        Some(Due { step, passed })
    }

    /// The latest multiple that a learner has reached whose newest version this is.
    fn reached(&self, newest: u64) -> u64 {
        let reached = self.last.map_or(newest, |last| newest.min(last.saturating_sub(1)));
        reached / self.every * self.every
    }

    /// Whether `newest` may stand in for a step that is not published any more: where it makes another step due, or is of a learner that
    /// went back behind this one and will take it again, that is waited for; where it is somebody else's, nothing is measured.
    pub fn stands_in(&self, newest: u64, step: u64) -> StandsIn {
        match self.reached(newest) {
            another if another > step || newest < step => StandsIn::Another,
            _ if self.last.is_some_and(|last| newest >= last) => StandsIn::Nobody,
            _ => StandsIn::Newest,
        }
    }

    /// It was not measured, and is due again.
    pub fn put_back(&mut self, step: u64) {
        self.next = self.next.min(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(step: u64, passed: u64) -> Option<Due> {
        Some(Due { step, passed })
    }

    #[test]
    fn each_multiple_has_its_turn_once_and_the_latest_comes_first() {
        let mut schedule = Schedule::new(10, None, 0);
        assert_eq!(schedule.due(0, 1), due(0, 0));
        assert_eq!(schedule.due(9, 1), None);
        assert_eq!(schedule.due(10, 1), due(10, 0));
        assert_eq!(schedule.due(10, 1), None);
        assert_eq!(schedule.due(43, 1), due(40, 2), "it was busy until now");
        schedule.put_back(40);
        assert_eq!(schedule.due(52, 1), due(50, 1));
        assert_eq!(Schedule::new(u64::MAX, None, 1).due(u64::MAX - 1, 1), None);
        assert_eq!(Schedule::new(1, None, 0).due(u64::MAX, 1), due(u64::MAX, u64::MAX), "whatever a learner says");
    }

    #[test]
    fn it_goes_on_behind_what_was_measured_and_leaves_the_last_to_others() {
        let mut schedule = Schedule::new(10, Some(40), 21);
        assert_eq!(schedule.due(29, 1), None);
        assert_eq!(schedule.due(40, 1), due(30, 0));
        assert_eq!(schedule.due(40, 1), None);
        assert_eq!(Schedule::new(10, Some(45), 0).due(45, 1), due(40, 4));
        assert_eq!(Schedule::new(10, Some(0), 0).due(0, 1), None);
    }

    #[test]
    fn the_newest_stands_in_for_what_is_gone_unless_another_is_due_or_it_is_not_ours() {
        let schedule = Schedule::new(10, Some(45), 0);
        let stands_in = |newest| schedule.stands_in(newest, 30);
        assert_eq!([33, 39].map(stands_in), [StandsIn::Newest; 2]);
        assert_eq!([40, 45, 99].map(stands_in), [StandsIn::Another; 3]);
        assert_eq!([44, 45].map(|newest| schedule.stands_in(newest, 40)), [StandsIn::Newest, StandsIn::Nobody]);
        assert_eq!(stands_in(29), StandsIn::Another, "a learner that went back: 30 comes again");
    }

    #[test]
    fn a_learner_that_went_back_makes_steps_due_again() {
        let mut schedule = Schedule::new(10, None, 0);
        assert_eq!(schedule.due(41, 1), due(40, 4));
        assert_eq!(schedule.due(25, 2), None);
        assert_eq!(schedule.due(30, 2), due(30, 0));
        assert_eq!(schedule.due(40, 2), due(40, 0));
        assert_eq!(schedule.due(55, 3), due(50, 0), "one that did not go back behind a multiple");
        // An evaluator that comes back later than the learner did.
        assert_eq!(Schedule::new(10, None, 50).due(37, 9), None);
    }
}
