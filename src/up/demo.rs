//! `rv-up demo`: the architecture with two small models, in a folder that it makes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stage::{Stage, usage};
use crate::up::answers::print;
use crate::up::args::{DemoArgs, StartArgs};
use crate::up::programs::Programs;
use crate::up::run_folder::enter_folder_of;
use crate::up::start;

/// The table on which the models are trained: 150 flowers.
const DATA: &str = include_str!("../../fixtures/iris.csv");

/// The policy: the tree answers, and from half a second on the regression may, too.
const POLICY: &str = include_str!("../../fixtures/policy.toml");

/// The models: the name, the version and the algorithm.
const MODELS: [(&str, &str, &str); 2] = [
    ("dt", "1", "decision-tree"),
    ("lr", "0", "logistic-regression"),
];

const NEXT: &str = "\
Ask it, and look at it:

  curl -d '{\"sepalLength\":5.1,\"sepalWidth\":3.5,\"petalLength\":1.4,\"petalWidth\":0.2}' \\
    http://LISTEN/predict
  cd FOLDER && rv-up status

`rv-up stop` in that folder ends it.
";

/// Makes the folder, unless there is one, and starts everything.
pub fn run(args: &DemoArgs, stage: &mut Stage) -> Result<()> {
    let file = args.folder.join("rv.toml");
    if !file.exists() {
        make(&args.folder, args)?;
    }
    let shown = args.folder.display().to_string();
    let name = enter_folder_of(&file)?;
    let text = start::run(&name, &StartArgs::default(), stage)?.unwrap_or_default();
    // The system may have chosen the port.
    let listen = text
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let next = NEXT.replace("LISTEN", listen.unwrap_or(&args.listen));
    print(
        &format!("{text}\n\n{}", next.replace("FOLDER", &shown)),
        stage,
    )
}

fn make(folder: &Path, args: &DemoArgs) -> Result<()> {
    let shown = folder.display();
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(usage(format!("{shown}: is not empty; name another folder")));
    }
    fs::create_dir_all(folder).with_context(|| format!("{shown}: cannot make it"))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot write", path.display()))
    };
    write("iris.csv", DATA)?;
    write("policy.toml", POLICY)?;
    let programs = Programs::find()?;
    programs.check("rv-score")?;
    let mut text = format!(
        "# Written by `rv-up demo`.\n\n[front]\nlisten = {:?}\n\n[admin]\nlisten = {:?}\n\n[archive]\n",
        args.listen, args.admin
    );
    for (name, version, algorithm) in MODELS {
        train(&programs, folder, name, version, algorithm)?;
        text += &format!("\n[model.{name}]\nfile = \"{name}.json\"\n");
    }
    // The file comes last: a folder with it is complete.
    write("rv.toml", &text)
}

fn train(
    programs: &Programs,
    folder: &Path,
    name: &str,
    version: &str,
    algorithm: &str,
) -> Result<()> {
    let output = format!("{name}.json");
    let trained = Command::new(programs.path("rv-score"))
        .args([
            "train", "--quiet", "--input", "iris.csv", "--target", "target",
        ])
        .args([
            "--features",
            "sepalLength,sepalWidth,petalLength,petalWidth",
        ])
        .args(["--algorithm", algorithm, "--name", name])
        .args(["--model-version", version, "--output", &output])
        .current_dir(folder)
        .output()
        .context("rv-score train")?;
    if !trained.status.success() {
        bail!("{}", String::from_utf8_lossy(&trained.stderr).trim_end());
    }
    Ok(())
}
