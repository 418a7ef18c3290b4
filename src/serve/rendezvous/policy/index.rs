//! A policy turned round: from a model to the steps that accept it, and from a draw
//! to its share. Each question costs a binary search, however long the policy is.

use crate::serve::rendezvous::policy::{ModelId, Selector, Share, Step};
use crate::wire::micros::Micros;

/// Where a policy names each model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// Ordered by name and version.
    models: Vec<(ModelId, Uses)>,
    /// The places of `"*"`, ordered by step.
    any: Vec<Place>,
    /// The starts of the shares' draws in ascending order, and each share's place in
    /// the policy.
    shares: Vec<(f64, usize)>,
}

/// What a policy says of one model.
#[derive(Clone, Debug, Default, PartialEq)]
struct Uses {
    /// Ordered by step.
    places: Vec<Place>,
    is_expected: bool,
    has_share: bool,
}

/// A place in the preference of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    step: usize,
    rank: usize,
}

/// The steps that accept one model.
#[derive(Clone, Copy, Debug)]
pub struct Accepting<'a> {
    by_name: &'a [Place],
    by_any: &'a [Place],
}

impl Index {
    /// Reads the parts of a checked policy.
    pub fn new(expect: &[ModelId], steps: &[Step], shares: &[Share]) -> Index {
        let mut uses: Vec<(&ModelId, Uses)> = Vec::new();
        let mut any = Vec::new();
        for (step, selectors) in steps.iter().map(|step| &step.selectors).enumerate() {
            for (rank, selector) in selectors.iter().enumerate() {
                let place = Place { step, rank };
                match selector {
                    Selector::Any => any.push(place),
                    Selector::Model(model) => uses.push((
                        model,
                        Uses {
                            places: vec![place],
                            ..Uses::default()
                        },
                    )),
                }
            }
        }
        for model in expect {
            let is_expected = true;
            uses.push((
                model,
                Uses {
                    is_expected,
                    ..Uses::default()
                },
            ));
        }
        for share in shares {
            let has_share = true;
            uses.push((
                &share.model,
                Uses {
                    has_share,
                    ..Uses::default()
                },
            ));
        }
        // The sort is stable, so the places of one model stay in the order of the
        // steps.
        uses.sort_by_key(|(model, _)| *model);
        let mut models: Vec<(ModelId, Uses)> = Vec::new();
        for (model, more) in uses {
            match models.last_mut() {
                Some((last, uses)) if last == model => uses.add(more),
                _ => models.push((model.clone(), more)),
            }
        }
        let mut by_draw: Vec<(f64, usize)> = shares
            .iter()
            .enumerate()
            .map(|(place, share)| (share.draws.start, place))
            .collect();
        by_draw.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Index {
            models,
            any,
            shares: by_draw,
        }
    }

    fn uses(&self, name: &str, version: u64) -> Option<&Uses> {
        let order = |model: &ModelId| {
            let by_name = model.name.as_str().cmp(name);
            by_name.then(model.version.cmp(&version))
        };
        let found = self.models.binary_search_by(|(model, _)| order(model));
        found.ok().map(|place| &self.models[place].1)
    }

    /// Whether a step, a share or `expect` names this model. `"*"` names none.
    pub fn names(&self, name: &str, version: u64) -> bool {
        self.uses(name, version).is_some()
    }

    /// Whether anything that this model reports can matter to an answer.
    pub fn concerns(&self, name: &str, version: u64) -> bool {
        !self.any.is_empty() || self.names(name, version)
    }

    /// Whether this model is in `expect`.
    pub fn expects(&self, name: &str, version: u64) -> bool {
        self.uses(name, version)
            .is_some_and(|uses| uses.is_expected)
    }

    /// The steps that accept this model.
    pub fn accepting(&self, name: &str, version: u64) -> Accepting<'_> {
        let uses = self.uses(name, version);
        Accepting {
            by_name: uses.map_or(&[], |uses| &uses.places),
            by_any: match uses {
                Some(uses) if uses.has_share => &[],
                _ => &self.any,
            },
        }
    }

    /// The place in the policy of the last share whose draws begin at `draw` or
    /// before.
    pub fn share_from(&self, draw: f64) -> Option<usize> {
        let after = self.shares.partition_point(|(start, _)| *start <= draw);
        Some(self.shares[after.checked_sub(1)?].1)
    }
}

impl Uses {
    fn add(&mut self, mut more: Uses) {
        self.places.append(&mut more.places);
        self.is_expected |= more.is_expected;
        self.has_share |= more.has_share;
    }
}

impl Accepting<'_> {
    /// The first step from `from` on that accepts the model.
    pub fn first_from(self, from: usize) -> Option<usize> {
        let first = |places: &[Place]| {
            let before = places.partition_point(|place| place.step < from);
            places.get(before).map(|place| place.step)
        };
        let steps = [first(self.by_name), first(self.by_any)];
        steps.into_iter().flatten().min()
    }

    /// The model's place in the preference of a step; `None` where the step does not
    /// accept it.
    pub fn rank_in(self, step: usize) -> Option<usize> {
        let rank = |places: &[Place]| {
            let found = places.binary_search_by_key(&step, |place| place.step);
            found.ok().map(|place| places[place].rank)
        };
        let ranks = [rank(self.by_name), rank(self.by_any)];
        ranks.into_iter().flatten().min()
    }
}

/// The step in force at `at`; before the first one, the first.
pub fn step_at(steps: &[Step], at: Micros) -> usize {
    let begun = steps.partition_point(|step| step.after <= at);
    begun.saturating_sub(1)
}
