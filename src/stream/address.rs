//! The addresses of streams, as flags give them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// The address of a stream, which a flag such as `--input` or `--output` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `-`: standard input for an input, standard output for an output.
    Standard,
    /// A descriptor that the program inherited, by its path: `/dev/fd/3`,
    /// `/proc/self/fd/3`, `/dev/stdin`, `/dev/stdout`.
    Inherited(String),
    /// Any other path: a file, a named pipe, a device, the folder of an archive.
    Path(String),
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Address, Infallible> {
        Ok(Address::from(text))
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Address {
        const INHERITED: [&str; 3] = ["/dev/fd/", "/proc/self/fd/", "/dev/std"];
        if text == "-" {
            Address::Standard
        } else if INHERITED.iter().any(|prefix| text.starts_with(prefix)) {
            Address::Inherited(text.to_owned())
        } else {
            Address::Path(text.to_owned())
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Address {
    /// Parses the address of an output, for every flag that takes one.
    pub fn of_output(text: &str) -> std::result::Result<Address, String> {
        let address = Address::from(text);
        if text.ends_with(".gz") && address.is_file_output() {
            // An input whose name ends in `.gz` is decompressed. So a plain file with
            // such a name could not be read back.
            return Err(
                "the output is not compressed, so its name must not end in .gz; use `rv-archive`, or pipe \
                 the output through `gzip`"
                    .to_owned(),
            );
        }
        Ok(address)
    }

    /// The address as given on the command line.
    pub fn as_str(&self) -> &str {
        match self {
            Address::Standard => "-",
            Address::Inherited(path) | Address::Path(path) => path,
        }
    }

    /// Whether an input at this address is standard input.
    pub fn is_standard_input(&self) -> bool {
        matches!(self.as_str(), "-" | "/dev/stdin")
    }

    /// Whether an output at this address is standard output.
    pub fn is_standard_output(&self) -> bool {
        matches!(self.as_str(), "-" | "/dev/stdout")
    }

    /// Whether an output at this address would be a regular file, existing or new.
    pub fn is_file_output(&self) -> bool {
        if self.is_standard_output() {
            return false;
        }
        match rustix::fs::stat(self.as_str()) {
            Ok(stat) => is_regular_file(&stat),
            Err(errno) => errno == Errno::NOENT,
        }
    }

    /// Whether this input and `output` are one regular file. Such a file would be
    /// emptied before it is read, or would grow forever.
    pub fn is_same_file(&self, output: &Address) -> bool {
        let input = match self {
            Address::Standard => rustix::fs::fstat(rustix::stdio::stdin()),
            _ => rustix::fs::stat(self.as_str()),
        };
        let output = match output {
            Address::Standard => rustix::fs::fstat(rustix::stdio::stdout()),
            _ => rustix::fs::stat(output.as_str()),
        };
        let (Ok(input), Ok(output)) = (input, output) else {
            return false;
        };
        is_regular_file(&input) && (input.st_dev, input.st_ino) == (output.st_dev, output.st_ino)
    }
}

/// Refuses to read `path` again if it is not a regular file: the bytes of a pipe can be
/// read only once, and the read could wait forever for another program.
pub fn require_rereadable(path: &str) -> Result<()> {
    match rustix::fs::stat(path) {
        Ok(stat) if !is_regular_file(&stat) => {
            bail!("{path}: is not a regular file, so it cannot be read again")
        }
        // The caller reports a missing file when it opens the file.
        _ => Ok(()),
    }
}

fn is_regular_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_recognized_by_its_text() {
        let path = |text: &str| Address::Path(text.to_owned());
        let inherited = |text: &str| Address::Inherited(text.to_owned());
        for (text, address) in [
            ("-", Address::Standard),
            ("/dev/fd/3", inherited("/dev/fd/3")),
            ("/proc/self/fd/0", inherited("/proc/self/fd/0")),
            ("/dev/stdout", inherited("/dev/stdout")),
            ("/dev/null", path("/dev/null")),
            ("./-", path("./-")),
            ("", path("")),
        ] {
            assert_eq!(Address::from(text), address, "{text}");
            assert_eq!(address.to_string(), text);
        }
        assert!(Address::from("/dev/stdin").is_standard_input());
        assert!(!Address::from("/dev/stdin").is_standard_output());
    }

    #[test]
    fn a_file_that_ends_in_gz_is_no_output_but_a_pipe_of_that_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.gz");
        let text = path.to_str().unwrap();
        assert!(
            Address::of_output(text)
                .unwrap_err()
                .contains("is not compressed")
        );
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert_eq!(Address::of_output(text), Ok(Address::Path(text.to_owned())));
    }

    #[test]
    fn one_file_is_recognized_under_two_names() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| Address::from(folder.path().join(name).to_str().unwrap());
        std::fs::write(name("one").as_str(), "").unwrap();
        std::fs::hard_link(name("one").as_str(), name("two").as_str()).unwrap();
        std::fs::write(name("three").as_str(), "").unwrap();
        assert!(name("one").is_same_file(&name("two")));
        assert!(!name("one").is_same_file(&name("three")));
        assert!(!name("one").is_same_file(&name("missing")));
        assert!(!Address::from("/dev/null").is_same_file(&Address::from("/dev/null")));
    }
}
