//! A model file that is in use and can be reloaded.

use std::sync::Arc;

use anyhow::{Result, bail};

use crate::model::Model;
use crate::serve::score::evaluator::Evaluator;
use crate::serve::score::scoring::ScoringOptions;
use crate::stream::address::require_rereadable;

/// A model file, and the evaluator that was made from it.
#[derive(Debug)]
pub struct ModelFile {
    path: String,
    allow_new_version: bool,
    options: ScoringOptions,
    evaluator: Arc<Evaluator>,
}

impl ModelFile {
    /// Loads a model file.
    pub fn load(path: &str, allow_new_version: bool, options: ScoringOptions) -> Result<ModelFile> {
        Ok(ModelFile {
            evaluator: Arc::new(Evaluator::new(Model::load(path)?, options.clone())),
            path: path.to_owned(),
            allow_new_version,
            options,
        })
    }

    /// The evaluator of the current model.
    pub fn evaluator(&self) -> &Arc<Evaluator> {
        &self.evaluator
    }

    /// Reloads the file. On an error the current model stays in use. Returns the new
    /// model's name, version and hash.
    pub fn reload(&mut self) -> Result<String> {
        require_rereadable(&self.path)?;
        let new = Model::load(&self.path)?;
        let old = self.evaluator.model();
        let is_same = (new.name(), new.version()) == (old.name(), old.version());
        if !is_same && !self.allow_new_version {
            bail!(
                "{}: now holds {}@{} instead of {}@{}; run the new model in addition to the old one and let \
                 the policy promote it, or allow the change with --allow-new-version",
                self.path,
                new.name(),
                new.version(),
                old.name(),
                old.version(),
            );
        }
        let loaded = format!("{}@{} ({})", new.name(), new.version(), new.hash());
        self.evaluator = Arc::new(Evaluator::new(new, self.options.clone()));
        Ok(loaded)
    }
}
