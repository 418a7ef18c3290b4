//! gzip files of several members. As in `gzip`, zeros after the last member are padding,
//! and any other bytes after it are a fault.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;

use flate2::bufread::GzDecoder;

/// The number of bytes that one read from disk asks for.
const BLOCK_BYTES: usize = 128 * 1024;

/// The first byte of every member.
const MAGIC: u8 = 0x1f;

/// Decompresses a file, member by member. Before an error, all text that can be read is
/// returned. After the error, the file counts as ended.
#[derive(Debug)]
pub struct GzipFile {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing of the next member has been read yet, or there is no next member.
    Between {
        reader: BufReader<File>,
        is_first: bool,
    },
    Inside(Box<GzDecoder<BufReader<File>>>),
    Ended,
}

impl GzipFile {
    /// Reads `file` from its current position.
    pub fn new(file: File) -> GzipFile {
        GzipFile {
            state: State::Between {
                reader: BufReader::with_capacity(BLOCK_BYTES, file),
                is_first: true,
            },
        }
    }
}

impl Read for GzipFile {
    /// Errors of the kinds `UnexpectedEof` and `InvalidData` are faults of the file;
    /// other errors come from the disk.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        loop {
            match mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Between {
                    mut reader,
                    is_first,
                } => {
                    if has_member(&mut reader, is_first)? {
                        self.state = State::Inside(Box::new(GzDecoder::new(reader)));
                    }
                }
                State::Inside(mut decoder) => match decoder.read(room) {
                    Ok(0) => {
                        self.state = State::Between {
                            reader: decoder.into_inner(),
                            is_first: false,
                        }
                    }
                    Ok(count) => {
                        self.state = State::Inside(decoder);
                        return Ok(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.state = State::Inside(decoder);
                        return Err(error);
                    }
                    // flate2 reports invalid data as invalid input.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        return Err(invalid(error.to_string()));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }
}

/// Whether another member follows. If not, only zeros may follow.
fn has_member(reader: &mut BufReader<File>, is_first: bool) -> io::Result<bool> {
    let next = fill(reader)?;
    if next.first() == Some(&MAGIC) {
        return Ok(true);
    }
    if is_first {
        let what = if next.is_empty() {
            "it is empty"
        } else {
            "it does not start like a gzip file"
        };
        return Err(invalid(what));
    }
    let mut zeros = 0u64;
    loop {
        let rest = fill(reader)?;
        if rest.is_empty() {
            return Ok(false);
        }
        let other = rest.iter().position(|byte| *byte != 0);
        let count = other.unwrap_or(rest.len());
        zeros += count as u64;
        if other.is_some() {
            let zeros = match zeros {
                0 => "",
                _ => "zeros and ",
            };
            return Err(invalid(format!(
                "its last member is followed by {zeros}data that is not gzip"
            )));
        }
        reader.consume(count);
    }
}

/// The buffered bytes. Reads from the file if the buffer is empty. Returns no bytes at
/// the end.
fn fill(reader: &mut BufReader<File>) -> io::Result<&[u8]> {
    while let Err(error) = reader.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(reader.buffer())
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// The readable text, and the fault that ended it.
    fn read(bytes: &[u8]) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut gzip = GzipFile::new(file);
        let mut text = Vec::new();
        let outcome = gzip.read_to_end(&mut text);
        assert_eq!(gzip.read(&mut [0; 8]).unwrap(), 0, "it has ended");
        (text, outcome.err().map(|error| error.kind()))
    }

    const DAMAGED: Option<io::ErrorKind> = Some(io::ErrorKind::InvalidData);
    const CUT: Option<io::ErrorKind> = Some(io::ErrorKind::UnexpectedEof);

    #[test]
    fn members_follow_each_other_and_zeros_follow_the_last() {
        let two = [member(b"one\n"), member(b"two\n")].concat();
        assert_eq!(read(&two), (b"one\ntwo\n".to_vec(), None));
        for zeros in [1, 7, 512, 300_000] {
            let padded = [&two[..], &vec![0; zeros]].concat();
            assert_eq!(read(&padded), (b"one\ntwo\n".to_vec(), None), "{zeros}");
            let more = [&padded[..], b"x"].concat();
            assert_eq!(read(&more), (b"one\ntwo\n".to_vec(), DAMAGED), "{zeros}");
        }
        assert_eq!(
            read(&[&two[..], b"junk"].concat()),
            (b"one\ntwo\n".to_vec(), DAMAGED)
        );
        assert_eq!(read(&member(b"")), (Vec::new(), None));
    }

    #[test]
    fn a_file_that_is_not_gzip_is_reported() {
        for bytes in [&b""[..], b"plain text\n", &[0; 512]] {
            assert_eq!(read(bytes), (Vec::new(), DAMAGED), "{bytes:?}");
        }
        let head = &member(b"text")[..10];
        assert_eq!(read(head), (Vec::new(), CUT));
        assert_eq!(read(&head[..4]), (Vec::new(), CUT));
    }

    #[test]
    fn the_text_before_a_damaged_member_is_returned() {
        let first = member(b"one\n");
        let mut second = member(&[b'x'; 1000]);
        let last = second.len() - 1;
        second[last] ^= 1;
        let (text, fault) = read(&[&first[..], &second].concat());
        assert!(text.starts_with(b"one\n"));
        assert_eq!(fault, DAMAGED);
        // The checksum at the very end of the file is wrong.
        let mut wrong = first.clone();
        wrong[first.len() - 5] ^= 1;
        assert_eq!(read(&wrong), (b"one\n".to_vec(), DAMAGED));
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_gives_a_prefix_and_is_never_taken_for_whole(
            texts in proptest::collection::vec("[a-z\n]{1,60}", 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let members: Vec<Vec<u8>> = texts.iter().map(|text| member(text.as_bytes())).collect();
            let all = members.concat();
            let cut = cut.index(all.len());
            let mut ends = members.iter().scan(0, |end, member| {
                *end += member.len();
                Some(*end)
            });
            let at_an_end = ends.any(|end| end == cut);
            let (text, fault) = read(&all[..cut]);
            prop_assert!(texts.concat().as_bytes().starts_with(&text));
            prop_assert_eq!(fault.is_none(), at_an_end);
        }
    }
}
