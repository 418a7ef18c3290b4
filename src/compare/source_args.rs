//! The flags for the models and the records, which the subcommands share.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;

use crate::compare::legs::{ByLeg, ModelId, Roles};
use crate::compare::values::Equality;
use crate::stage::cli::duration;
use crate::stage::streams::InputArgs;
use crate::stage::usage;
use crate::stream::address::Address;

/// The flags for both models and for the records.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// The model that is the measure, such as dt@1; without a version, any version
    #[arg(long, value_name = "MODEL", required = true)]
    base: Option<ModelId>,

    /// The model that may replace it
    #[arg(long, value_name = "MODEL", required = true)]
    candidate: Option<ModelId>,

    /// Decisions, or scores of several models in one stream
    #[command(flatten)]
    pub input: InputArgs,

    /// Read recorded scores from these files or folders instead, one for each model or
    /// for several. They are read in step, and joined by messageId. With --follow, these
    /// are pipes, and are read as they come
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "input")]
    pub scores: Vec<Address>,

    /// Two numbers are equal if they differ by at most X. Without this flag, numbers are
    /// classes, and equal if their values are
    #[arg(long, value_name = "X", value_parser = tolerance)]
    tolerance: Option<f64>,

    /// Compare a request when the records are DURATION past it, by the requests'
    /// timestamps. A score that comes later is counted and not used
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub disorder: Duration,

    /// Compare the oldest request as it is when more than N requests wait for scores
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub max_open: NonZeroU32,

    /// Compare the oldest request as it is when the scores, and the inputs, that wait take
    /// more than SIZE
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub max_open_bytes: ByteSize,

    /// Remember the ids of N requests, to count a repeated one once
    #[arg(long, value_name = "N", default_value = "100000")]
    pub remember: u32,
}

/// The flags for further models.
#[derive(Args, Clone, Debug)]
pub struct MoreModelArgs {
    /// A second copy of the base under a name of its own. The candidate is then tested
    /// against what the copy differs
    #[arg(long, value_name = "MODEL")]
    noise: Option<ModelId>,

    /// A model that both are compared with, such as the canary
    #[arg(long, value_name = "MODEL")]
    ruler: Option<ModelId>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    match number.is_finite() && number >= 0.0 {
        true => Ok(number),
        false => Err("is not a number from 0 up".to_owned()),
    }
}

impl SourceArgs {
    /// When two answers are equal.
    pub fn equality(&self) -> Equality {
        Equality {
            tolerance: self.tolerance,
        }
    }

    /// The models and their roles. Two roles of one model are refused.
    pub fn roles(&self, more: Option<&MoreModelArgs>) -> Result<Roles> {
        let models: ByLeg<Option<ModelId>> = [
            self.base.clone(),
            self.candidate.clone(),
            more.and_then(|more| more.noise.clone()),
            more.and_then(|more| more.ruler.clone()),
        ];
        let given: Vec<&ModelId> = models.iter().flatten().collect();
        for (place, one) in given.iter().enumerate() {
            for other in &given[place + 1..] {
                if one.overlaps(other) {
                    return Err(usage(format!(
                        "{one} and {other} may be the same model; compare two names or versions"
                    )));
                }
            }
        }
        Ok(Roles { models })
    }
}
