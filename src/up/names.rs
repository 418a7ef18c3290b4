//! The names of stages and seats.

/// The stages that are no seats. Their names are also those of their logs and stats.
pub const STAGES: [&str; 8] = [
    "front",
    "tee",
    "rendezvous",
    "archive",
    "decisions",
    "decided",
    "elasticsearch",
    "rv-up",
];

/// The longest name of a seat, in bytes. Named pipes and files bear the name.
const NAME_BYTES_MAX: usize = 64;

/// Refuses a name that cannot name a seat. The error says which names can.
pub fn check_seat_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !begins_well || !name.bytes().all(is_plain) || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "{name:?} cannot name a model: use up to {NAME_BYTES_MAX} letters, digits and ._@-, \
             and begin with a letter or a digit"
        ));
    }
    if STAGES.contains(&name) {
        return Err(format!(
            "{name:?} cannot name a model, because a stage has this name"
        ));
    }
    Ok(())
}
