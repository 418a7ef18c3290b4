//! Drift of the model inputs, and of what the models answer, from a reference.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};

use crate::compare::decisions::read_decision;
use crate::compare::inputs::{FIELDS_MAX, Inputs, Sample, each_field};
use crate::compare::legs::{Leg, LegScore, Observation, Roles};
use crate::compare::reference::{KnownNumbers, ReferenceField, recorded_fields};
use crate::compare::report::{Drift, DriftTest, Missing};
use crate::compare::statistics::drift::{
    distance_from, jensen_shannon, kolmogorov_smirnov, population_stability,
};
use crate::compare::values::is_compound;
use crate::model::Model;
use crate::stage::recording::Recording;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::wire::message::{Field, Record};
use crate::wire::object::value_of;

/// The name under which the answers of a model are reported.
const RESULT: &str = "result";

/// The name under which the confidence of a model is reported.
const CONFIDENCE: &str = "confidence";

/// The models whose answers are watched.
const WATCHED: [Leg; 2] = [Leg::Base, Leg::Candidate];

/// What later requests are compared with.
#[derive(Debug)]
pub struct Reference {
    /// The fields of the model input.
    inputs: Group,
    /// The answers of base and candidate.
    answers: [Group; 2],
    /// The model whose profile the reference is; `None` for a recording.
    model: Option<Box<Model>>,
}

/// Some fields, by their names.
#[derive(Debug, Default)]
struct Group {
    fields: Vec<ReferenceField>,
    by_name: HashMap<String, usize>,
    /// The records of the reference.
    records: u64,
}

impl Group {
    fn new(fields: Vec<ReferenceField>, records: u64) -> Group {
        let names = fields.iter().map(|field| field.name.clone());
        Group {
            by_name: names.zip(0..).collect(),
            fields,
            records,
        }
    }

    fn recorded(inputs: &Inputs) -> Group {
        Group::new(recorded_fields(inputs), inputs.records)
    }
}

/// The result and the confidence of a model, if it answered.
fn each_answer(score: Option<&LegScore>, mut show: impl FnMut(&str, &str)) -> bool {
    let Some((score, answer)) = score.and_then(|score| Some((score, score.answer()?))) else {
        return false;
    };
    if !is_compound(answer) && answer != "null" {
        show(RESULT, answer);
    }
    if let Some(confidence) = value_of(score.outcome, CONFIDENCE)
        && confidence != "null"
    {
        show(CONFIDENCE, confidence);
    }
    true
}

impl Reference {
    /// Reads a recording: requests, decisions or scores. The answers of base and
    /// candidate are read from decisions. Lines that are not records are set aside.
    pub fn recorded(address: &Address, roles: &Roles, stage: &mut Stage) -> Result<Reference> {
        let mut inputs = Inputs::default();
        let mut answers = [Inputs::default(), Inputs::default()];
        let mut recording = Recording::open(address, stage)?;
        while let Some((line, name)) = recording.next_line(stage)? {
            let read = match line.record() {
                Ok(None) => continue,
                Ok(Some(bytes)) => Record::parse(bytes).and_then(|record| {
                    let model_input = record.model_input()?;
                    if record.get(Field::Candidates).is_some() {
                        let read = read_decision(&record, roles)?;
                        let seen = read.observation();
                        for (leg, answers) in WATCHED.into_iter().zip(&mut answers) {
                            let score = seen.score(leg);
                            let add = |name: &str, value: &str| answers.add_value(name, value);
                            answers.records += u64::from(each_answer(score, add));
                        }
                    }
                    inputs.add(model_input);
                    Ok(())
                }),
                Err(reject) => Err(reject),
            };
            if let Err(reject) = read {
                stage.report.reject(name, &line, &reject)?;
            }
        }
        if inputs.records == 0 {
            bail!("{address}: has no record with a model input, so no drift can be found");
        }
        Ok(Reference {
            inputs: Group::recorded(&inputs),
            answers: answers.map(|it| Group::recorded(&it)),
            model: None,
        })
    }

    /// The profile in a model file. Answers are compared with it if the model is base or
    /// candidate.
    pub fn profile(path: &str, roles: &Roles) -> Result<Reference> {
        let model = Box::new(Model::load(path)?);
        let Some(profile) = &model.description().profile else {
            return Err(usage(format!(
                "{path}: has no profile, because the model was imported or is old; train it again \
                 with rv-score train, or give a recording with --reference"
            )));
        };
        let features = profile.features.iter().zip(model.features());
        let fields =
            features.map(|(profile, feature)| ReferenceField::of_feature(profile, feature));
        let inputs = Group::new(fields.collect(), 0);
        let scores = &profile.scores;
        let count = scores.count as f64;
        let of_answers = || {
            let mut fields = Vec::new();
            let labels = model
                .description()
                .classes
                .iter()
                .map(|label| canonical_text(label.get()));
            let labels: Vec<String> = labels.collect();
            if !labels.is_empty() {
                let shares = scores.class_shares.iter().map(|share| share * count);
                let classes = labels.iter().map(String::as_str).zip(shares);
                fields.push(ReferenceField::of_categories(RESULT, classes, 0.0));
            }
            for (name, quantiles) in [(RESULT, &scores.numbers), (CONFIDENCE, &scores.confidence)] {
                if let Some(quantiles) = quantiles {
                    fields.push(ReferenceField::of_quantiles(name, quantiles, count));
                }
            }
            Group::new(fields, scores.count)
        };
        let leg = roles.leg_of(model.name(), model.version());
        let answers = WATCHED.map(|watched| match leg == Some(watched) {
            true => of_answers(),
            false => Group::default(),
        });
        Ok(Reference {
            inputs,
            answers,
            model: Some(model),
        })
    }
}

fn canonical_text(label: &str) -> String {
    crate::wire::answer::canonical(label).into_owned()
}

/// The counts of one field in the requests that are compared.
#[derive(Clone, Debug)]
struct FieldCounts {
    /// The values of each bin. That of missing values is not used.
    bins: Vec<f64>,
    present: u64,
    numbers: Sample<f64>,
}

impl FieldCounts {
    fn new(field: &ReferenceField) -> FieldCounts {
        FieldCounts {
            bins: vec![0.0; field.bins()],
            present: 0,
            numbers: Sample::default(),
        }
    }

    fn add(&mut self, (bin, number): (usize, Option<f64>)) {
        if let Some(count) = self.bins.get_mut(bin) {
            *count += 1.0;
        }
        self.present += 1;
        if let Some(number) = number {
            self.numbers.add(number);
        }
    }
}

/// The counts of some fields.
#[derive(Clone, Debug, Default)]
struct GroupCounts {
    records: u64,
    fields: Vec<FieldCounts>,
    /// The number of values of fields that the reference does not have.
    new_fields: BTreeMap<String, u64>,
}

impl GroupCounts {
    fn new(group: &Group) -> GroupCounts {
        GroupCounts {
            records: 0,
            fields: group.fields.iter().map(FieldCounts::new).collect(),
            new_fields: BTreeMap::new(),
        }
    }

    fn add(&mut self, group: &Group, name: &str, value: &str) {
        if let Some(index) = group.by_name.get(name) {
            let place = group.fields[*index].place(value);
            self.fields[*index].add(place);
        } else if let Some(count) = self.new_fields.get_mut(name) {
            *count += 1;
        } else if self.new_fields.len() < FIELDS_MAX && name.len() <= 200 {
            self.new_fields.insert(name.to_owned(), 1);
        }
    }
}

/// The counts of the requests that are compared with a reference.
#[derive(Clone, Debug)]
pub struct Watched {
    inputs: GroupCounts,
    answers: [GroupCounts; 2],
}

impl Watched {
    /// Starts without a request.
    pub fn new(reference: &Reference) -> Watched {
        Watched {
            inputs: GroupCounts::new(&reference.inputs),
            answers: [0, 1].map(|leg| GroupCounts::new(&reference.answers[leg])),
        }
    }

    /// Adds a request.
    pub fn add(&mut self, reference: &Reference, seen: &Observation) {
        if let Some(model_input) = seen.model_input {
            self.inputs.records += 1;
            let (group, counts) = (&reference.inputs, &mut self.inputs);
            match &reference.model {
                Some(model) => model.observe(model_input, |index, observed| {
                    if let Some(place) = group.fields[index].place_observed(observed) {
                        counts.fields[index].add(place);
                    }
                }),
                None => each_field(model_input, |name, value| counts.add(group, name, value)),
            }
        }
        for (place, leg) in WATCHED.into_iter().enumerate() {
            let (group, counts) = (&reference.answers[place], &mut self.answers[place]);
            let add = |name: &str, value: &str| counts.add(group, name, value);
            if !group.fields.is_empty() && each_answer(seen.score(leg), add) {
                counts.records += 1;
            }
        }
    }

    /// The drift of each field, in the order of their names: of the inputs, of the base's
    /// answers, and of the candidate's.
    pub fn drift(&self, reference: &Reference) -> Vec<Drift> {
        let groups = [
            ("input", &reference.inputs, &self.inputs),
            ("base", &reference.answers[0], &self.answers[0]),
            ("candidate", &reference.answers[1], &self.answers[1]),
        ];
        let mut all = Vec::new();
        for (of, group, counts) in groups {
            let mut drifts: Vec<Drift> = group
                .fields
                .iter()
                .zip(&counts.fields)
                .map(|(field, found)| field_drift(of, field, found, counts.records))
                .collect();
            // A recording shows which fields there were. A profile has only those that
            // the model uses.
            for (name, present) in &counts.new_fields {
                let field = ReferenceField::absent(name, group.records);
                let mut found = FieldCounts::new(&field);
                found.bins[0] = *present as f64;
                found.present = *present;
                drifts.push(field_drift(of, &field, &found, counts.records));
            }
            drifts.sort_by(|one, other| one.field.cmp(&other.field));
            all.append(&mut drifts);
        }
        all
    }
}

fn field_drift(
    of: &'static str,
    field: &ReferenceField,
    found: &FieldCounts,
    records: u64,
) -> Drift {
    let missing = records.saturating_sub(found.present);
    let mut bins = found.bins.clone();
    let unseen = bins[bins.len() - 2];
    if let Some(last) = bins.last_mut() {
        *last = missing as f64;
    }
    let psi = population_stability(field.counts(), &bins);
    let floor = field.floor(found.present + missing);
    Drift {
        of,
        field: field.name.clone(),
        kind: match field.is_numeric {
            true => "number",
            false => "category",
        },
        missing: Missing {
            reference: field.missing(),
            current: missing as f64 / records.max(1) as f64,
        },
        unseen: (found.present > 0).then(|| unseen / found.present as f64),
        psi,
        floor,
        drifts: psi.zip(floor).is_some_and(|(psi, floor)| psi > floor),
        jensen_shannon: jensen_shannon(field.counts(), &bins),
        kolmogorov_smirnov: test(field, found),
    }
}

/// The distance of the distributions of numbers. Bins have no p-value.
fn test(field: &ReferenceField, found: &FieldCounts) -> Option<DriftTest> {
    let numbers = sorted(found.numbers.values());
    match field.numbers.as_ref().filter(|_| field.is_numeric)? {
        KnownNumbers::Sample(sample) => {
            let (statistic, p_value) = kolmogorov_smirnov(sample, &numbers)?;
            Some(DriftTest {
                statistic,
                p_value: Some(p_value),
            })
        }
        KnownNumbers::Shares(known) => Some(DriftTest {
            statistic: distance_from(&numbers, known)?,
            p_value: None,
        }),
    }
}

/// Numbers in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::statistics::sampling::Random;

    fn seen<'a>(model_input: &'a str, base: &'a str) -> Observation<'a> {
        let score = LegScore::new(false, false, None, base);
        Observation {
            message_id: "x",
            time: None,
            model_input: Some(model_input),
            answered: None,
            is_decision: true,
            scores: [Some(score), None, None, None],
        }
    }

    fn reference(inputs: &[String]) -> Reference {
        let mut all = Inputs::default();
        inputs.iter().for_each(|input| all.add(input));
        Reference {
            inputs: Group::recorded(&all),
            answers: Default::default(),
            model: None,
        }
    }

    fn drift(reference: &Reference, inputs: &[String]) -> Vec<Drift> {
        let mut watched = Watched::new(reference);
        for input in inputs {
            watched.add(reference, &seen(input, "{}"));
        }
        watched.drift(reference)
    }

    /// Inputs with a random number and a random category.
    fn inputs(count: u64, seed: u64, shift: f64, categories: f64) -> Vec<String> {
        let mut random = Random::new(seed);
        let input = |_| {
            let x = random.uniform() + shift;
            let category = (categories * random.uniform()).floor();
            format!(r#"{{"x":{x},"c":"{category}"}}"#)
        };
        (0..count).map(input).collect()
    }

    fn names(drifts: &[Drift]) -> Vec<&str> {
        let found = drifts.iter().filter(|drift| drift.drifts);
        found.map(|drift| drift.field.as_str()).collect()
    }

    #[test]
    fn a_field_drifts_beyond_what_chance_and_the_reference_show() {
        let reference = reference(&inputs(10_000, 1, 0.0, 4.0));
        let of = |inputs: &[String]| drift(&reference, inputs);
        assert!(names(&of(&inputs(3_000, 2, 0.0, 4.0))).is_empty());
        let moved = of(&inputs(3_000, 2, 0.3, 4.0));
        assert_eq!(names(&moved), ["x"]);
        let mixed = of(&inputs(3_000, 2, 0.0, 5.0));
        assert_eq!(names(&mixed), ["c"]);
        assert!((mixed[0].unseen.unwrap() - 0.2).abs() < 0.03);
        assert!(mixed[1].kolmogorov_smirnov.unwrap().p_value > Some(0.001));
        assert!((moved[1].unseen.unwrap() - 0.3).abs() < 0.03);
        assert!(moved[1].kolmogorov_smirnov.unwrap().p_value < Some(1e-9));
    }

    #[test]
    fn windows_of_any_size_seldom_drift_by_chance() {
        let reference = reference(&inputs(2_000, 1, 0.0, 4.0));
        for size in [10, 50, 400, 4_000] {
            let alarms: usize = (0..100)
                .map(|seed| names(&drift(&reference, &inputs(size, 100 + seed, 0.0, 4.0))).len())
                .sum();
            assert!(alarms <= 2, "{alarms} of 200 fields with {size} values");
        }
    }

    #[test]
    fn a_change_of_type_and_a_field_that_comes_or_goes_are_drift() {
        let numbers: Vec<String> = (0..500).map(|x| format!(r#"{{"x":{x}}}"#)).collect();
        let texts: Vec<String> = (0..500).map(|x| format!(r#"{{"x":"{x}"}}"#)).collect();
        let both: Vec<String> = (0..500).map(|x| format!(r#"{{"x":{x},"y":1}}"#)).collect();
        let none = vec!["{}".to_owned(); 500];
        for (one, other, drifting) in [
            (&numbers, &numbers, &[][..]),
            (&numbers, &texts, &["x"]),
            (&texts, &numbers, &["x"]),
            (&numbers, &none, &["x"]),
            (&numbers, &both, &["y"]),
            (&both, &numbers, &["y"]),
        ] {
            let found = drift(&reference(one), other);
            assert_eq!(names(&found), drifting, "{found:?}");
        }
        let found = drift(&reference(&numbers), &texts);
        assert_eq!(
            (found[0].unseen, found[0].missing.current),
            (Some(1.0), 0.0)
        );
    }

    #[test]
    fn missing_fields_and_empty_inputs_are_reported() {
        let empty = reference(&[]);
        assert!(drift(&empty, &[]).is_empty());
        let one = [r#"{"x":1,"y":2}"#.to_owned(), r#"{"x":1}"#.to_owned()];
        let other = [r#"{"x":1,"z":1}"#.to_owned()];
        let found = drift(&reference(&one), &other);
        let missing: Vec<(f64, f64)> = found
            .iter()
            .map(|it| (it.missing.reference, it.missing.current))
            .collect();
        assert_eq!(missing, [(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)]);
        assert!(found.iter().all(|it| !it.drifts), "{found:?}");
        let found = drift(&reference(&one), &[]);
        assert!(
            found.iter().all(|it| it.psi.is_none() && !it.drifts),
            "{found:?}"
        );
    }

    #[test]
    fn inputs_and_answers_are_compared_with_the_profile_of_a_model() {
        let path = "fixtures/one_request/0_model.dt.json";
        let roles = Roles {
            models: [
                Some("dt@1".parse().unwrap()),
                Some("lr@0".parse().unwrap()),
                None,
                None,
            ],
        };
        let reference = Reference::profile(path, &roles).unwrap();
        let flowers = std::fs::read_to_string("fixtures/flowers.ndjson").unwrap();
        let flowers: Vec<&str> = flowers.lines().collect();
        let of = |change: &dyn Fn(&str) -> String, answer: &dyn Fn(usize) -> usize| {
            let mut watched = Watched::new(&reference);
            for (number, flower) in flowers.iter().enumerate() {
                let class = answer(number);
                let outcome = format!(r#"{{"result":{class},"confidence":1.0}}"#);
                watched.add(&reference, &seen(&change(flower), &outcome));
            }
            watched.drift(&reference)
        };
        let class = |number: usize| number / 50;
        let same = of(&str::to_owned, &class);
        let all: Vec<(&str, &str)> = same.iter().map(|it| (it.of, &*it.field)).collect();
        let features = ["petalLength", "petalWidth", "sepalLength", "sepalWidth"];
        let mut wanted = features.map(|name| ("input", name)).to_vec();
        wanted.extend([("base", "confidence"), ("base", "result")]);
        assert_eq!(all, wanted);
        assert!(names(&same).is_empty(), "{same:?}");
        let test = same[0].kolmogorov_smirnov.unwrap();
        assert!(test.statistic < 0.05 && test.p_value.is_none(), "{test:?}");
        let longer = of(
            &|it| it.replace("\"petalLength\":", "\"petalLength\":1"),
            &class,
        );
        assert_eq!(names(&longer), ["petalLength"]);
        let text = of(
            &|it| it.replace("\"sepalWidth\":", "\"sepalWidth\":\"a\",\"w\":"),
            &class,
        );
        assert_eq!(names(&text), ["sepalWidth"]);
        assert_eq!(text[3].unseen, Some(1.0));
        let gone = of(&|it| it.replace("sepalWidth", "width"), &class);
        assert_eq!(
            (names(&gone), gone[3].missing.current),
            (vec!["sepalWidth"], 1.0)
        );
        let answers = of(&str::to_owned, &|number| usize::from(number < 100));
        assert_eq!(names(&answers), ["result"]);
    }
}
