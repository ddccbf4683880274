//! Authorities and the certificates that they issue.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

use super::{AUTHORITY_VALIDITY, CLOCK_SKEW, LEAF_VALIDITY};
use crate::{Error, Result};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Client,
    Server,
    Both,
}

/// A certificate to be issued.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) organization: Option<String>,
    pub(super) purpose: Use,
    /// Host names and addresses.
    pub(super) alternatives: Vec<String>,
}

/// An authority with its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// In PEM.
    pub(super) certificate: String,
}

/// A new key of the curve P-256.
pub(super) fn key_pair() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::Keys { what: "a key".to_owned(), source })
}

impl Authority {
    /// A new authority that signs itself.
    pub(super) fn new(name: &str, now: OffsetDateTime) -> Result<Self> {
        let failed = |source| Error::Keys { what: format!("the authority {name}"), source };
        let mut parameters = CertificateParams::new([name.to_owned()]).map_err(failed)?;
        parameters.distinguished_name = distinguished(name, None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        parameters.not_before = now - CLOCK_SKEW;
        parameters.not_after = now + AUTHORITY_VALIDITY;
        let key = key_pair()?;
        let certificate = parameters.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    /// Its key, in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate and its key, both in PEM.
    pub(super) fn issue(&self, leaf: &Leaf, now: OffsetDateTime) -> Result<(String, String)> {
        let failed = |source| Error::Keys { what: format!("the certificate {}", leaf.name), source };
        let mut parameters = CertificateParams::new(leaf.alternatives.clone()).map_err(failed)?;
        parameters.distinguished_name = distinguished(&leaf.name, leaf.organization.as_deref());
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let purposes: &[_] = match leaf.purpose {
            Use::Client => &[ExtendedKeyUsagePurpose::ClientAuth],
            Use::Server => &[ExtendedKeyUsagePurpose::ServerAuth],
            Use::Both => &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        parameters.extended_key_usages = purposes.to_vec();
        parameters.not_before = now - CLOCK_SKEW;
        parameters.not_after = now + LEAF_VALIDITY;
        let key = key_pair()?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok((certificate, key.serialize_pem()))
    }
}

fn distinguished(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if let Some(organization) = organization {
        distinguished.push(DnType::OrganizationName, organization);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}
