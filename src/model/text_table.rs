//! Tables and numbers as readable text.

/// The lines of a table. The first column is aligned to the left, and the other columns
/// are aligned to the right.
pub fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let mut text = String::from(" ");
        for (column, cell) in cells.iter().enumerate() {
            let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            text.push(' ');
            if column == 0 {
                text.push_str(cell);
                text.push_str(&space);
            } else {
                text.push(' ');
                text.push_str(&space);
                text.push_str(cell);
            }
        }
        text.trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

/// A number with up to six significant digits.
pub fn six_significant_digits(number: f64) -> String {
    let exact = number.to_string();
    if exact.len() <= 8 {
        return exact;
    }
    let rounded: f64 = format!("{number:.5e}").parse().unwrap_or(number);
    let (plain, scientific) = (rounded.to_string(), format!("{rounded:e}"));
    if plain.len() <= 12 { plain } else { scientific }
}

/// A text, cut to `chars` characters.
pub fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let dots = if chars > 6 { "..." } else { "~" };
    let head = text.chars().take(chars.saturating_sub(dots.len()));
    head.chain(dots.chars()).collect()
}
