//! Makes the cluster's certificate authority: chance and the clock are the host's, so it is made here.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use sider_core::server::Authority;

/// How long its certificate is valid: ten years, as Consul's.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A new authority for a trust domain.
///
/// # Errors
/// Why none can be made.
pub(super) fn make(trust_domain: &str) -> Result<Authority, String> {
    make_certificate(trust_domain).map_err(|error| error.to_string())
}

fn make_certificate(trust_domain: &str) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    // Whole seconds, as a certificate writes them.
    let now = SystemTime::UNIX_EPOCH
        + Duration::from_secs(
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
        );
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("sider.ca.{trust_domain}"));
    let uri = format!("spiffe://{trust_domain}").try_into()?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(1));
    params.not_before = now.into();
    params.not_after = (now + LIFETIME).into();
    let key_id = params.key_identifier(&key);
    let certificate = params.self_signed(&key)?;
    let key_id: Vec<String> = key_id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Authority {
        certificate: certificate.pem(),
        private_key: key.serialize_pem(),
        key_id: key_id.join(":"),
        not_before: humantime::format_rfc3339_seconds(now).to_string(),
        not_after: humantime::format_rfc3339_seconds(now + LIFETIME).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_has_a_certificate_a_key_and_an_id_of_its_own() {
        let (one, other) = (make("a.consul").unwrap(), make("a.consul").unwrap());
        assert!(one.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(one.private_key.contains("PRIVATE KEY"));
        assert!(one.not_before < one.not_after);
        assert_ne!(one.key_id, other.key_id);
    }
}
