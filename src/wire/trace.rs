//! The context of a distributed trace (W3C Trace Context): the headers of calls, and
//! the members of records with the same names (pure).

use sha2::{Digest, Sha256};

use crate::wire::sha256::hex;

/// The member and the header with the ids of the trace and of the calling span.
pub const TRACEPARENT: &str = "traceparent";

/// The member and the header with the entries of tracing systems.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;

/// The longest `traceparent` of a later version that is kept.
const PARENT_BYTES_MAX: usize = 256;

/// The longest `tracestate` that is kept.
const STATE_BYTES_MAX: usize = 512;

/// The trace that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// A valid `traceparent`.
    pub parent: String,
    /// The `tracestate`, if there is one.
    pub state: Option<String>,
}

impl TraceContext {
    /// The context of a call. `None` if `parent` is not valid. A state that is empty, too
    /// long or not plain text is left out, as the standard allows.
    pub fn new(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        let is_state = |state: &&str| {
            let is_plain = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
            (1..=STATE_BYTES_MAX).contains(&state.len()) && state.bytes().all(is_plain)
        };
        is_parent(parent).then(|| TraceContext {
            parent: parent.to_owned(),
            state: state.filter(is_state).map(str::to_owned),
        })
    }

    /// Begins a trace with ids of these random bytes. The trace is sampled.
    pub fn begin(trace: u128, span: u64) -> TraceContext {
        // An id of zeros is not valid.
        let (trace, span) = (trace.max(1), span.max(1));
        TraceContext {
            parent: format!("00-{trace:032x}-{span:016x}-01"),
            state: None,
        }
    }

    /// The `traceparent` of a call that is made for this trace, with the id of the call's
    /// span.
    pub fn parent_of_call(&self, span: &str) -> String {
        // The parts of a valid parent are ASCII and have fixed places.
        let (trace, flags) = (&self.parent[3..35], &self.parent[53..55]);
        format!("00-{trace}-{span}-{flags}")
    }
}

/// The id of the span in which a model works on a request: the first 16 hexadecimal
/// digits of the SHA-256 of the id of the request, a NUL, and the model as `dt@1`. Every
/// program that reads a record can compute the id, so no record has to hold it.
pub fn span_id(message_id: &str, model: &str) -> String {
    let digest = Sha256::new()
        .chain_update(message_id)
        .chain_update([0])
        .chain_update(model)
        .finalize();
    hex(&digest[..8])
}

fn is_parent(text: &str) -> bool {
    let is_hex = |part: &[u8]| {
        part.iter()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let bytes = text.as_bytes();
    let Some(known) = bytes.get(..PARENT_BYTES) else {
        return false;
    };
    let parts: Vec<&[u8]> = known.split(|byte| *byte == b'-').collect();
    let [version, trace, span, flags] = parts.as_slice() else {
        return false;
    };
    let is_long_enough = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    let rest = &bytes[PARENT_BYTES..];
    let fits = rest.is_empty()
        || *version != b"00"
            && rest[0] == b'-'
            && bytes.len() <= PARENT_BYTES_MAX
            && rest.iter().all(u8::is_ascii_graphic);
    is_long_enough
        && fits
        && parts.iter().all(|part| is_hex(part))
        && *version != b"ff"
        && trace.iter().any(|byte| *byte != b'0')
        && span.iter().any(|byte| *byte != b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_a_valid_parent_is_kept() {
        assert!(TraceContext::new(PARENT, None).is_some());
        let later = PARENT.replacen("00", "cc", 1) + "-what-is-new";
        assert!(TraceContext::new(&later, None).is_some());
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-\u{e9}",
        ] {
            assert_eq!(TraceContext::new(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_is_too_long_is_left_out() {
        let state = |state: &str| TraceContext::new(PARENT, Some(state)).unwrap().state;
        assert_eq!(state("a=1,b=2").as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&"a".repeat(513)), None);
        assert_eq!(
            (state(""), state("a=\n"), state("\u{e9}")),
            (None, None, None)
        );
    }

    #[test]
    fn a_call_belongs_to_the_trace_and_has_a_span_of_its_own() {
        let trace = TraceContext::new(PARENT, None).unwrap();
        let span = span_id("a", "dt@1");
        assert_eq!(
            trace.parent_of_call(&span),
            format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01")
        );
        // sha256sum of "a\0dt@1".
        assert_eq!(span.len(), 16);
        assert_ne!(span, span_id("a", "dt@2"));
        let begun = TraceContext::begin(0, 0);
        assert!(TraceContext::new(&begun.parent, None).is_some());
    }

    proptest! {
        #[test]
        fn whatever_a_header_holds_nothing_breaks(
            parent in "([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,3}|.{0,60})",
            state in ".{0,20}",
        ) {
            if let Some(trace) = TraceContext::new(&parent, Some(&state)) {
                let call = trace.parent_of_call("00000000000000a1");
                prop_assert!(TraceContext::new(&call, None).is_some(), "{call}");
            }
        }
    }
}
