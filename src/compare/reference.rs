//! The distributions that later values are compared with: those of a recording, or those
//! of the profile in a model file.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::compare::inputs::{Cell, FieldValues, Inputs};
use crate::compare::statistics::drift::population_stability;
use crate::compare::statistics::sampling::{Random, chance_floor};
use crate::model::feature::Feature;
use crate::model::features::Observed;
use crate::model::profile::{FeatureProfile, Quantiles, Values};
use crate::wire::answer::{canonical, number};

/// The number of bins of numbers. Each has an equal share of the reference.
const BINS: usize = 10;

/// The number of windows of a recording that are compared with all of it.
const WINDOWS: usize = 10;

/// The seed of the samples that give the floor.
const SEED: u64 = 0;

/// The numbers of the reference, for the distance of Kolmogorov and Smirnov.
#[derive(Debug)]
pub enum KnownNumbers {
    /// Numbers in ascending order.
    Sample(Vec<f64>),
    /// The share of numbers up to some values, in ascending order.
    Shares(Vec<(f64, f64)>),
}

/// The distribution of one field. Each value is in one bin: an interval of numbers, a
/// category, or the bin of what the reference has not seen. A last bin holds the
/// records without a value.
#[derive(Debug)]
pub struct ReferenceField {
    /// The name of the field.
    pub name: String,
    /// Whether most values are numbers.
    pub is_numeric: bool,
    /// The numbers, if there are any.
    pub numbers: Option<KnownNumbers>,
    /// The largest numbers of all bins of numbers but the last one.
    edges: Vec<f64>,
    /// The smallest and the largest number.
    range: Option<(f64, f64)>,
    /// The bin of each category.
    categories: HashMap<String, usize>,
    /// The bin of further categories, if there are any.
    other: Option<usize>,
    counts: Vec<f64>,
    /// For each edge, how much of the distribution may be on its other side, because
    /// the share up to it is not known exactly.
    doubts: Vec<f64>,
    size: u64,
    /// The largest index of a window of the reference beside all of it.
    of_windows: Option<f64>,
    floors: RefCell<HashMap<u64, Option<f64>>>,
}

impl ReferenceField {
    /// A field without a value in `size` records.
    pub fn absent(name: &str, size: u64) -> ReferenceField {
        ReferenceField {
            name: name.to_owned(),
            is_numeric: false,
            numbers: None,
            edges: Vec::new(),
            range: None,
            categories: HashMap::new(),
            other: None,
            counts: vec![0.0, size as f64],
            doubts: Vec::new(),
            size,
            of_windows: None,
            floors: RefCell::default(),
        }
    }

    /// A field of a recording.
    pub fn recorded(name: &str, values: &FieldValues, records: u64) -> ReferenceField {
        let cells = values.cells.values();
        let number = |cell: &Cell| match cell {
            Cell::Number(number) => Some(*number),
            _ => None,
        };
        let mut numbers: Vec<f64> = cells.iter().filter_map(number).collect();
        numbers.sort_by(f64::total_cmp);
        let edges = (1..BINS).filter_map(|bin| numbers.get(numbers.len() * bin / BINS).copied());
        let edges: Vec<f64> = edges.collect();
        let range = numbers.first().copied().zip(numbers.last().copied());
        let mut field = ReferenceField::absent(name, 0);
        field.set_numbers(edges, range);
        let first = field.number_bins();
        let names = values.categories.names().iter().cloned().zip(first..);
        field.categories = names.collect();
        let has_other = cells.contains(&Cell::Other);
        field.other = has_other.then(|| first + field.categories.len());
        let bins = first + field.categories.len() + usize::from(has_other) + 2;
        let place = |cell: &Cell| match cell {
            Cell::Number(number) => field.bin_of_number(*number, bins),
            Cell::Category(category) => first + category,
            Cell::Other => first + field.categories.len(),
        };
        let places: Vec<usize> = cells.iter().map(place).collect();
        let histogram = |places: &[usize]| {
            let mut counts = vec![0.0; bins];
            places.iter().for_each(|place| counts[*place] += 1.0);
            counts
        };
        let mut counts = histogram(&places);
        if places.len() >= WINDOWS {
            let windows = places.chunks(places.len().div_ceil(WINDOWS));
            let indices = windows.filter_map(|it| population_stability(&counts, &histogram(it)));
            field.of_windows = indices.max_by(f64::total_cmp);
        }
        let present = values.present();
        let kept = places.len() as f64 / present.max(1) as f64;
        counts[bins - 1] = records.saturating_sub(present) as f64 * kept.min(1.0);
        field.size = counts.iter().sum::<f64>().round() as u64;
        field.counts = counts;
        field.is_numeric = values.is_numeric();
        field.numbers = (!numbers.is_empty()).then_some(KnownNumbers::Sample(numbers));
        field
    }

    /// A feature of a model, by the profile of its training.
    pub fn of_feature(profile: &FeatureProfile, feature: &Feature) -> ReferenceField {
        let present = profile.count as f64 * (1.0 - profile.missing_share).clamp(0.0, 1.0);
        let missing = profile.count as f64 - present;
        let mut field = match &profile.values {
            Values::Numbers { quantiles } => {
                ReferenceField::of_quantiles(&profile.name, quantiles, present)
            }
            Values::Categories { counts, other } => {
                let categories = feature.categories().unwrap_or_default();
                let names = categories.iter().map(String::as_str);
                let counts = counts.iter().map(|count| *count as f64);
                ReferenceField::of_categories(&profile.name, names.zip(counts), *other as f64)
            }
        };
        if let Some(last) = field.counts.last_mut() {
            *last = missing;
        }
        field.size = profile.count;
        field
    }

    /// Numbers of which the quantiles are known.
    pub fn of_quantiles(name: &str, quantiles: &Quantiles, present: f64) -> ReferenceField {
        let all: Vec<f64> = (0..=100)
            .map_while(|percent| quantiles.at(percent))
            .collect();
        // The last quantile that is not above the value has the share of numbers up to
        // the value.
        let last = |value: f64| all.partition_point(|it| *it <= value).saturating_sub(1);
        let mut field = ReferenceField::absent(name, present.round() as u64);
        field.is_numeric = true;
        let edges = (1..BINS).filter_map(|bin| all.get(100 * bin / BINS).copied());
        let range = all.first().copied().zip(all.last().copied());
        field.set_numbers(edges.collect(), range);
        let (mut shares, mut before) = (Vec::new(), 0.0);
        for edge in &field.edges {
            let step = last(*edge);
            // If several quantiles are equal, many numbers are. Their share then is
            // known to one percent only.
            let doubt = match step > 0 && all[step - 1] == all[step] {
                true => 0.01,
                false => 0.0,
            };
            let up_to = (step as f64 / 100.0 + doubt / 2.0).min(1.0);
            shares.push((up_to - before).max(0.0));
            field.doubts.push(doubt / 2.0);
            before = up_to;
        }
        let bins = field.number_bins() + 2;
        if field.range.is_some() {
            shares.push((1.0 - before).max(0.0));
        }
        field.counts = shares.into_iter().map(|share| share * present).collect();
        field.counts.resize(bins, 0.0);
        let mut known: Vec<(f64, f64)> = Vec::new();
        for (step, value) in all.iter().enumerate() {
            match known.last_mut() {
                Some(known) if known.0 == *value => known.1 = step as f64 / 100.0,
                _ => known.push((*value, step as f64 / 100.0)),
            }
        }
        field.numbers = (!known.is_empty()).then_some(KnownNumbers::Shares(known));
        field
    }

    /// Categories with their counts, and the count of all others.
    pub fn of_categories<'n>(
        name: &str,
        categories: impl Iterator<Item = (&'n str, f64)>,
        other: f64,
    ) -> ReferenceField {
        let mut field = ReferenceField::absent(name, 0);
        field.counts.clear();
        for (category, count) in categories {
            field
                .categories
                .insert(category.to_owned(), field.counts.len());
            field.counts.push(count);
        }
        if other > 0.0 {
            field.other = Some(field.counts.len());
            field.counts.push(other);
        }
        field.counts.extend([0.0, 0.0]);
        field.size = field.counts.iter().sum::<f64>().round() as u64;
        field
    }

    fn set_numbers(&mut self, mut edges: Vec<f64>, range: Option<(f64, f64)>) {
        edges.dedup();
        edges.retain(|edge| range.is_some_and(|(_, high)| *edge < high));
        self.edges = edges;
        self.range = range;
    }

    fn number_bins(&self) -> usize {
        match self.range {
            Some(_) => self.edges.len() + 1,
            None => 0,
        }
    }

    fn bin_of_number(&self, number: f64, bins: usize) -> usize {
        match self.range {
            Some((low, high)) if low <= number && number <= high => {
                self.edges.partition_point(|edge| *edge < number)
            }
            _ => bins - 2,
        }
    }

    /// The number of bins, with those of unseen and of missing values.
    pub fn bins(&self) -> usize {
        self.counts.len()
    }

    /// The bin of a JSON value of a recording, and the number that the value is.
    pub fn place(&self, value: &str) -> (usize, Option<f64>) {
        let number = number(value);
        if let Some(number) = number
            && self.range.is_some()
        {
            return (self.bin_of_number(number, self.bins()), Some(number));
        }
        let bin = self.categories.get(&*canonical(value)).copied();
        // A number among texts is a change of type, and not one of further texts.
        let other = self.other.filter(|_| number.is_none());
        (bin.or(other).unwrap_or(self.bins() - 2), number)
    }

    /// The bin of a value of a model's feature, and the number that the value is. `None`
    /// for a missing value.
    pub fn place_observed(&self, observed: Observed) -> Option<(usize, Option<f64>)> {
        let unseen = self.other.unwrap_or(self.bins() - 2);
        match observed {
            Observed::Number(number) => {
                Some((self.bin_of_number(number, self.bins()), Some(number)))
            }
            Observed::Category(code) if code < self.categories.len() => Some((code, None)),
            Observed::Category(_) | Observed::Unseen => Some((unseen, None)),
            Observed::Missing => None,
        }
    }

    /// The counts of the bins.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// The share of records without a value.
    pub fn missing(&self) -> f64 {
        let missing = self.counts.last().copied().unwrap_or(0.0);
        match self.size {
            0 => 0.0,
            size => missing / size as f64,
        }
    }

    /// What the population stability index of `size` values of this distribution reaches
    /// by chance; in a recording, at least what its own windows reach.
    pub fn floor(&self, size: u64) -> Option<f64> {
        // A slightly smaller size has a slightly larger floor. So few sizes are enough,
        // and windows of similar sizes share a floor.
        let shift = (u64::BITS - size.leading_zeros()).saturating_sub(6);
        let rounded = size >> shift << shift;
        let mut floors = self.floors.borrow_mut();
        let found = floors
            .entry(rounded)
            .or_insert_with(|| chance_floor(|random| self.draw(random), self.size, rounded, SEED));
        let by_chance = (*found)?;
        Some(self.of_windows.map_or(by_chance, |it| it.max(by_chance)))
    }

    /// The shares of the bins, as they may be.
    fn draw(&self, random: &mut Random) -> Vec<f64> {
        let size = self.size as f64;
        // What the reference has not seen may exist nevertheless.
        let unseen = self.bins() - 2;
        let share = |(bin, count): (usize, &f64)| match bin == unseen {
            true => (count + 1.0) / (size + 1.0),
            false => count / (size + 1.0),
        };
        let mut shares: Vec<f64> = self.counts.iter().enumerate().map(share).collect();
        for (edge, doubt) in self.doubts.iter().enumerate() {
            let moved = doubt * (2.0 * random.uniform() - 1.0);
            let moved = moved.clamp(-shares[edge], shares[edge + 1]);
            shares[edge] += moved;
            shares[edge + 1] -= moved;
        }
        shares
    }
}

/// The fields of a recording, by their names.
pub fn recorded_fields(inputs: &Inputs) -> Vec<ReferenceField> {
    let fields = inputs.fields.iter();
    fields
        .map(|(name, values)| ReferenceField::recorded(name, values, inputs.records))
        .collect()
}
