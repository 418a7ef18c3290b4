//! Finds the rules of a policy for a model, and the share of a draw. Each lookup is a
//! binary search, so long policies stay fast.

use crate::serve::rendezvous::policy::parts::{ModelId, Selector, Share, Step};

/// The rules of a policy, by model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyIndex {
    /// The models that the policy names, ordered by name and version.
    models: Vec<(ModelId, ModelUses)>,
    /// The entries `"*"`, ordered by step.
    any: Vec<StepRank>,
    /// For each share, the lowest draw and the share's index in the policy, in
    /// ascending order.
    shares: Vec<(f64, usize)>,
}

/// A model that the policy names, as its position in the index of the policy. A caller
/// with several questions about a model needs to look it up only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel(u32);

/// The rules of a policy for one model.
#[derive(Clone, Debug, Default, PartialEq)]
struct ModelUses {
    /// The entries that name the model, ordered by step.
    ranks: Vec<StepRank>,
    /// Those entries of `ranks` that are the first selector of their step.
    firsts: Vec<StepRank>,
    is_expected: bool,
    has_share: bool,
}

/// An entry in the preference of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StepRank {
    step: usize,
    /// The position of the entry in the preference, from 0. Lower positions are
    /// preferred.
    rank: usize,
}

/// The steps that accept one model.
#[derive(Clone, Copy, Debug)]
pub struct AcceptingSteps<'a> {
    by_name: &'a [StepRank],
    by_any: &'a [StepRank],
}

impl PolicyIndex {
    /// Makes the index from the parts of a policy that was checked.
    pub fn new(expected: &[ModelId], steps: &[Step], shares: &[Share]) -> PolicyIndex {
        let mut uses: Vec<(&ModelId, ModelUses)> = Vec::new();
        let mut any = Vec::new();
        for (step, selectors) in steps.iter().map(|step| &step.selectors).enumerate() {
            for (rank, selector) in selectors.iter().enumerate() {
                let entry = StepRank { step, rank };
                match selector {
                    Selector::Any => any.push(entry),
                    Selector::Model(model) => uses.push((model, ModelUses::step(entry))),
                }
            }
        }
        uses.extend(expected.iter().map(|model| (model, ModelUses::expected())));
        uses.extend(
            shares
                .iter()
                .map(|share| (&share.model, ModelUses::share())),
        );
        // The sort is stable, so the entries of one model stay in the order of the
        // steps.
        uses.sort_by_key(|(model, _)| *model);
        let mut models: Vec<(ModelId, ModelUses)> = Vec::new();
        for (model, more) in uses {
            match models.last_mut() {
                Some((last, uses)) if last == model => uses.add(more),
                _ => models.push((model.clone(), more)),
            }
        }
        let draws = shares.iter().map(|share| share.draws.start);
        let mut by_draw: Vec<(f64, usize)> = draws.zip(0..).collect();
        by_draw.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        PolicyIndex {
            models,
            any,
            shares: by_draw,
        }
    }

    /// Finds a model that a step, a share or `expect` names. `"*"` names no model.
    pub fn find(&self, name: &str, version: u64) -> Option<NamedModel> {
        let order = |model: &ModelId| {
            let by_name = model.name.as_str().cmp(name);
            by_name.then(model.version.cmp(&version))
        };
        let found = self.models.binary_search_by(|(model, _)| order(model));
        found.ok().map(|place| NamedModel(place as u32))
    }

    /// Whether a score of this model can change an answer. `None` means a model that
    /// the policy does not name.
    pub fn can_matter(&self, model: Option<NamedModel>) -> bool {
        !self.any.is_empty() || model.is_some()
    }

    /// Whether this model is one of the expected models.
    pub fn expects(&self, model: Option<NamedModel>) -> bool {
        model.is_some_and(|model| self.uses(model).is_expected)
    }

    /// The steps that accept this model. `None` means a model that the policy does
    /// not name.
    pub fn accepting(&self, model: Option<NamedModel>) -> AcceptingSteps<'_> {
        let uses = model.map(|model| self.uses(model));
        AcceptingSteps {
            by_name: uses.map_or(&[], |uses| &uses.ranks),
            by_any: match uses {
                Some(uses) if uses.has_share => &[],
                _ => &self.any,
            },
        }
    }

    /// The steps that accept a refusal of this model. These are the steps whose first
    /// selector names the model. A step whose first selector is `"*"` accepts no
    /// refusal, because `"*"` names no model.
    pub fn accepting_refusal(&self, model: Option<NamedModel>) -> AcceptingSteps<'_> {
        AcceptingSteps {
            by_name: model.map_or(&[], |model| &self.uses(model).firsts),
            by_any: &[],
        }
    }

    fn uses(&self, model: NamedModel) -> &ModelUses {
        &self.models[model.0 as usize].1
    }

    /// The last share whose draws begin at `draw` or below, as its index in the
    /// policy.
    pub fn share_from(&self, draw: f64) -> Option<usize> {
        let after = self.shares.partition_point(|(start, _)| *start <= draw);
        Some(self.shares[after.checked_sub(1)?].1)
    }
}

impl ModelUses {
    fn step(entry: StepRank) -> ModelUses {
        let is_first = entry.rank == 0;
        ModelUses {
            ranks: vec![entry],
            firsts: is_first.then_some(entry).into_iter().collect(),
            ..ModelUses::default()
        }
    }

    fn expected() -> ModelUses {
        ModelUses {
            is_expected: true,
            ..ModelUses::default()
        }
    }

    fn share() -> ModelUses {
        ModelUses {
            has_share: true,
            ..ModelUses::default()
        }
    }

    fn add(&mut self, mut more: ModelUses) {
        self.ranks.append(&mut more.ranks);
        self.firsts.append(&mut more.firsts);
        self.is_expected |= more.is_expected;
        self.has_share |= more.has_share;
    }
}

impl AcceptingSteps<'_> {
    /// The first step from `from` on that accepts the model.
    pub fn first_from(self, from: usize) -> Option<usize> {
        let first = |ranks: &[StepRank]| {
            let before = ranks.partition_point(|entry| entry.step < from);
            ranks.get(before).map(|entry| entry.step)
        };
        let steps = [first(self.by_name), first(self.by_any)];
        steps.into_iter().flatten().min()
    }

    /// The model's rank in the preference of a step, 0 first; `None` if the step does
    /// not accept the model.
    pub fn rank_in(self, step: usize) -> Option<usize> {
        let rank = |ranks: &[StepRank]| {
            let found = ranks.binary_search_by_key(&step, |entry| entry.step);
            found.ok().map(|place| ranks[place].rank)
        };
        let ranks = [rank(self.by_name), rank(self.by_any)];
        ranks.into_iter().flatten().min()
    }
}
