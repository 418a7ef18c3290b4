//! What a bridge counts itself.

/// Counts that the ledger does not have.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records of the program, or of standard input.
    pub records_out: u64,
    /// Records that a broker has stored, rejected ones included.
    pub published: u64,
    /// Records of the program's own rejects.
    pub rejected_by_program: u64,
    /// Deaths of the program.
    pub program_deaths: u64,
}
