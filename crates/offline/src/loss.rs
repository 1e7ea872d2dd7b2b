//! `hypereyes loss`: the policy-gradient objective on cases of log-probs and rewards, in float64.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hypereyes_objective::cases::{KEYS, first_difference};
use hypereyes_objective::evaluate_case;

use crate::{keys, lines};

/// Arguments of `loss`.
#[derive(Args, Debug)]
#[command(after_help = "A case is one JSON object with options, raw_rewards, masks, old_logprobs, new_logprobs and, where they matter,\n\
    rollout_logprobs, teacher_logprobs and distill. The answer has the case's id, the loss, its derivative to every new\n\
    log-prob (dloss_dnew), the advantages and the clip, KL and importance metrics. Other keys are wrong input; expected, note,\n\
    notes and metadata are free.\n\n\
    Examples:\n  hypereyes loss < cases.jsonl\n  jq -c '.cases[]' policy_gradient_vectors.json | hypereyes loss --check 1e-9")]
pub struct LossArgs {
    /// Cases, one JSON object each. Default: stdin.
    pub file: Option<PathBuf>,
    /// Compare with each case's `expected` within this tolerance; the first difference ends the command as wrong input.
    #[arg(long, value_name = "TOLERANCE")]
    pub check: Option<f64>,
}

/// Prints one line per case.
pub fn run(args: &LossArgs) -> Result<()> {
    lines::each(args.file.as_deref(), |case| {
        keys::check(case, "a case", &KEYS)?;
        let answer = evaluate_case(case)?;
        if let (Some(tolerance), Some(expected)) = (args.check, case.get("expected"))
            && let Some(difference) = first_difference(&answer, expected, tolerance)
        {
            anyhow::bail!("differs from what was expected at {difference}");
        }
        Ok(keys::under_id(case, answer))
    })
}
