//! The flags that say how rows are cut into fields and how cells are read. `rv-score
//! train` and `rv-score eval` share them.

use clap::Args;

use crate::train::cell::CellSyntax;

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct SyntaxArgs {
    /// Texts or numbers that stand for a missing value, in all columns. Without this
    /// flag, NA, N/A, NaN, null, None, ? and - do so in CSV columns of numbers
    #[arg(
        long,
        value_name = "MARKER,...",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    missing: Vec<String>,

    /// The separator of CSV fields: one character, or `tab`. Default: by the name of
    /// the file (`.tsv`) and by the header
    #[arg(long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    delimiter: Option<u8>,

    /// The decimal separator of numbers in CSV: `.` or `,`. A field with the other
    /// separator is not a number
    #[arg(long, value_name = "CHARACTER", default_value = ".", value_parser = [".", ","])]
    decimal: String,
}

/// How rows are cut into fields, and how cells are read.
#[derive(Clone, Debug, Default)]
pub struct RowSyntax {
    /// The separator of CSV fields; guessed from the header if `None`.
    pub delimiter: Option<u8>,
    /// How cells are read.
    pub cells: CellSyntax,
}

impl From<SyntaxArgs> for RowSyntax {
    fn from(args: SyntaxArgs) -> RowSyntax {
        RowSyntax {
            delimiter: args.delimiter,
            cells: CellSyntax::new(&args.missing, args.decimal == ","),
        }
    }
}

/// Parses the separator of CSV fields.
fn parse_delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("tab" | "\\t", _) => Ok(b'\t'),
        (_, [byte]) if byte.is_ascii_graphic() && *byte != b'"' || matches!(byte, b' ' | b'\t') => {
            Ok(*byte)
        }
        _ => Err("must be one ASCII character, such as `;`, or `tab`".to_owned()),
    }
}
