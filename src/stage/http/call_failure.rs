//! The reason why a call has no reply.

use std::error::Error;
use std::io;

/// The texts of an error and of its causes, without the address.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    reason
}

/// Whether an error or one of its causes satisfies `is`. An I/O error may contain another
/// error that is not its source; that one is a cause, too.
pub fn has_cause(
    error: &(dyn Error + 'static),
    is: &dyn Fn(&(dyn Error + 'static)) -> bool,
) -> bool {
    if is(error) {
        return true;
    }
    let held = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    held.is_some_and(|held| has_cause(held, is))
        || error.source().is_some_and(|source| has_cause(source, is))
}

/// Whether the certificate of the server is not trusted. No later call will work either.
pub fn is_bad_certificate(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, &|error| {
        let error = error.downcast_ref::<rustls::Error>();
        matches!(error, Some(rustls::Error::InvalidCertificate(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_certificate_differs_from_a_lost_connection() {
        let bad = || rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert!(is_bad_certificate(&bad()));
        assert!(is_bad_certificate(&io::Error::other(io::Error::other(
            bad()
        ))));
        let lost = io::Error::other(rustls::Error::DecryptError);
        assert!(!is_bad_certificate(&lost));
    }
}
