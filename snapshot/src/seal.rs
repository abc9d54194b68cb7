//! Encryption to age recipients: public keys seal, and only identities, which no node has, open.
//!
//! What is sealed is an age file (age-encryption.org/v1) to X25519 recipients, with a random key of
//! its own: the same bytes sealed twice differ. It hides what was written, and is no signature:
//! whoever has the recipients can seal.

use crate::error::Reason;
use age::x25519;
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Arc;

/// Names a set of recipients; says nothing of who they are to those who do not know them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecipientsId(pub u128);

impl fmt::Display for RecipientsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One public key, `age1…`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient(x25519::Recipient);

impl FromStr for Recipient {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Recipient, &'static str> {
        text.parse().map(Recipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whom an archive is encrypted to; nobody: it is plain.
#[derive(Clone, Debug, Default)]
pub struct Recipients {
    all: Arc<[Recipient]>,
    id: Option<RecipientsId>,
    salt: Salt,
}

/// What a part begins with, so that its name proves no guess of what is in it; zeros where all can
/// read it.
pub type Salt = [u8; 32];

impl Recipients {
    /// `secret`: what whoever can read the store does not know. It is the same for as long as parts
    /// that have not changed are to be known again.
    pub fn new(recipients: &[Recipient], secret: u128) -> Recipients {
        let mut texts: Vec<String> = recipients.iter().map(Recipient::to_string).collect();
        texts.sort_unstable();
        texts.dedup();
        let hash = blake3::hash(texts.join("\n").as_bytes());
        let id = hash.as_bytes().first_chunk().expect("thirty-two bytes");
        let salt = match texts.is_empty() {
            true => Salt::default(),
            false => blake3::derive_key("standfast: salt of archived parts", &secret.to_le_bytes()),
        };
        Recipients {
            salt,
            id: (!texts.is_empty()).then(|| RecipientsId(u128::from_le_bytes(*id))),
            all: recipients.into(),
        }
    }

    pub(crate) fn salt(&self) -> &Salt {
        &self.salt
    }

    /// `None` where nothing is encrypted.
    pub fn id(&self) -> Option<RecipientsId> {
        self.id
    }

    /// Seals some bytes in memory.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + plain.len() / 1024 + 1024);
        self.seal_into(plain, &mut sealed)
            .expect("memory takes any bytes");
        sealed
    }

    /// Seals some bytes; an error is one of `into`.
    pub fn seal_into(&self, plain: &[u8], into: impl Write) -> io::Result<()> {
        let all = self.all.iter().map(|one| &one.0 as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(all).expect("there is one");
        let mut writer = encryptor.wrap_output(into)?;
        writer.write_all(plain)?;
        writer.finish()?.flush()
    }
}

/// The private keys of whoever may read: none, or those of an identity file.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

/// Never the keys.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

impl Identities {
    /// Reads an identity file as `age-keygen` writes it: one or several keys, a line each. What is
    /// wrong is told without the line, which may be a secret.
    pub fn parse(text: &str) -> Result<Identities, String> {
        let mut all = Vec::new();
        for (i, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("age-encryption.org/") || line.starts_with("-----BEGIN AGE") {
                let what = "it is encrypted itself: decrypt it first, with `age --decrypt`";
                return Err(what.to_string());
            }
            let identity = line.parse();
            all.push(
                identity.map_err(|why: &str| {
                    format!("line {} is no AGE-SECRET-KEY-1…: {why}", i + 1)
                })?,
            );
        }
        match all.is_empty() {
            true => Err("there is no AGE-SECRET-KEY-1… in it".to_string()),
            false => Ok(Identities(all)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens what was sealed to these recipients, if one of them is here.
    pub(crate) fn open(&self, to: RecipientsId, sealed: &[u8]) -> Result<Vec<u8>, Reason> {
        if self.is_empty() {
            return Err(Reason::Sealed(to));
        }
        let broken = |error: &dyn fmt::Display| Reason::Unpack(error.to_string());
        let decryptor = age::Decryptor::new_buffered(sealed).map_err(|e| broken(&e))?;
        let all = self.0.iter().map(|one| one as &dyn age::Identity);
        let mut reader = decryptor.decrypt(all).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => Reason::Key(to),
            other => broken(&other),
        })?;
        let mut plain = Vec::with_capacity(sealed.len());
        reader.read_to_end(&mut plain).map_err(|e| broken(&e))?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;

    #[test]
    fn each_recipient_opens_and_nobody_else() {
        let (one, two, other) = (key(1), key(2), key(3));
        let recipients = Recipients::new(&[one.0.clone(), two.0.clone()], 0);
        let id = recipients.id().unwrap();
        let sealed = recipients.seal(b"books");
        assert_ne!(sealed, recipients.seal(b"books"));
        for identities in [&one.1, &two.1] {
            assert_eq!(identities.open(id, &sealed).unwrap(), b"books");
        }
        let refused = |identities: &Identities| identities.open(id, &sealed).unwrap_err();
        assert!(matches!(refused(&other.1), Reason::Key(_)));
        assert!(matches!(refused(&Identities::default()), Reason::Sealed(_)));
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            // A grease stanza's name is nobody's concern but the header's MAC.
            assert!(one.1.open(id, &bad).is_err(), "byte {at}");
            assert!(one.1.open(id, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_order_of_recipients_does_not_matter_and_nobody_is_no_recipient() {
        let (one, two) = (key(1).0, key(2).0);
        let id = |all: &[Recipient]| Recipients::new(all, 0).id();
        assert_eq!(
            id(&[one.clone(), two.clone()]),
            id(&[two.clone(), one.clone(), two.clone()])
        );
        assert_ne!(id(std::slice::from_ref(&one)), id(&[two]));
        assert_eq!(id(&[]), None);
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn an_identity_file_holds_keys_and_its_errors_do_not() {
        let secret = crate::fixtures::secret(1);
        let file = format!(
            "# created: today\n\n{secret}\n{}\n",
            crate::fixtures::secret(2)
        );
        assert_eq!(
            format!("{:?}", Identities::parse(&file).unwrap()),
            "2 identities"
        );
        let broken = format!("# a comment\n{}\n", &secret[..40]);
        let error = Identities::parse(&broken).unwrap_err();
        assert!(
            error.contains("line 2") && !error.contains(&secret[16..40]),
            "{error}"
        );
        assert!(Identities::parse("# nothing\n").is_err());
        let locked = Identities::parse("age-encryption.org/v1\n-> scrypt").unwrap_err();
        assert!(locked.contains("decrypt it first"), "{locked}");
    }
}
