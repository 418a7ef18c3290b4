//! Statistics of results whose true labels are known.

/// How well a model finds one class (scikit-learn `precision_recall_fscore_support`
/// with `zero_division=0`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassQuality {
    /// The share of its results with this class that are right.
    pub precision: f64,
    /// The share of the labels with this class that the model finds.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// The number of labels with this class.
    pub support: u64,
}

/// The quality for each class. Rows of the table are labels, columns are results.
pub fn class_qualities(table: &super::tables::SquareTable) -> Vec<ClassQuality> {
    let quality = |class: usize| {
        let right = table[class][class] as f64;
        let support: u64 = table[class].iter().sum();
        let given: u64 = table.iter().map(|row| row[class]).sum();
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        ClassQuality {
            precision: share(right, given as f64),
            recall: share(right, support as f64),
            f1: share(2.0 * right, (given + support) as f64),
            support,
        }
    };
    (0..table.len()).map(quality).collect()
}

/// The number of bins of a calibration table.
pub const CALIBRATION_BINS: usize = 10;

/// How well a model's probabilities fit the labels. Each result adds its confidence and
/// whether the result is right. Memory does not grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// For each of the equally wide bins of confidence: the number of results, the sum
    /// of confidences, and the number of right results (scikit-learn
    /// `calibration_curve`).
    pub bins: [(u64, f64, u64); CALIBRATION_BINS],
    squares: f64,
    count: u64,
}

impl Calibration {
    /// Adds a result with its confidence, from 0 to 1.
    pub fn add(&mut self, confidence: f64, is_right: bool) {
        // A confidence on an edge belongs to the bin below the edge.
        let place = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut self.bins[place.saturating_sub(1).min(CALIBRATION_BINS - 1)];
        bin.0 += 1;
        bin.1 += confidence;
        bin.2 += u64::from(is_right);
        let error = confidence - f64::from(u8::from(is_right));
        self.squares += error * error;
        self.count += 1;
    }

    /// The Brier score of "the result is right" (scikit-learn `brier_score_loss`).
    pub fn brier(&self) -> Option<f64> {
        (self.count > 0).then(|| self.squares / self.count as f64)
    }
}
