//! rv-compare: decisions or scores -> a report that tells which model is better.
//!
//! `reader` hands over each request once, with what each model answered (`legs`). A
//! `tally` counts the requests in constant memory; `summary` makes a `report` of it, with
//! the pure functions of `statistics`. `table` and `html` show a report. `comparing` puts
//! these together, and reads the `gates`.

mod args;
mod bounded_names;
mod classes;
mod comparing;
mod decisions;
mod disagreements;
mod drifting;
mod fields;
mod figures;
mod gates;
mod html;
mod inputs;
mod label_file;
mod label_summary;
mod label_texts;
mod labelled;
mod late_labels;
mod legs;
mod live;
mod plot;
mod reader;
mod reference;
mod report;
mod slices;
mod source_args;
mod speed;
mod statistics;
mod steady_time;
mod summary;
mod table;
mod tally;
mod trend;
mod values;
mod windows;

use anyhow::Result;

pub use crate::compare::args::CompareArgs;

use crate::compare::args::CompareCommand;
use crate::compare::comparing::Comparing;
use crate::compare::reader::Reader;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;

impl Program for CompareArgs {
    const NAME: &'static str = "rv-compare";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        if let Some(CompareCommand::Disagreements(args)) = &self.command {
            return disagreements::run(args, stage);
        }
        let question = self.question()?;
        let roles = question.roles.clone();
        let comparing = Comparing::open(&self, question, stage)?;
        let reader = Reader::new(&self.source, roles, comparing, stage);
        match self.live_records() {
            Some(records) => {
                let labels = self.labels.live();
                reader.run_live(&records, labels, &self.output, stage)
            }
            None => reader.run(&self.source, &self.output, stage),
        }
    }
}
