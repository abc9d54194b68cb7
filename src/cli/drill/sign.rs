//! Reports as files that prove who wrote them: ed25519 over the canonical bytes of the report.
//!
//! Canonical is compact JSON with sorted names and without the field `signature`; the public key is
//! among what is signed. A file must also be written exactly as a drill writes it, so that no
//! changed byte goes unnoticed, not even a space.

use super::report::Report;
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::random;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde_json::{Map, Value};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The field that is not signed: the signature itself.
const SIGNATURE: &str = "signature";
const PUBLIC_KEY: &str = "public_key";

/// Makes a key in a new file that only its owner can read; answers the public half.
pub fn generate(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(ExitCode::Exists, text),
            _ => Failure::new(ExitCode::Failed, text),
        }
    };
    let mut seed = [0; 32];
    for half in seed.chunks_exact_mut(16) {
        half.copy_from_slice(&random::id()?.to_le_bytes());
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    writeln!(file, "{}", hex(&seed)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(hex(SigningKey::from_bytes(&seed)
        .verifying_key()
        .as_bytes()))
}

/// Reads a key that `generate` made; one that others can read proves nothing and is refused.
pub fn load(path: &Path) -> Result<SigningKey, Failure> {
    let refuse = |why: &str| {
        let text = format!("the drill key {}: {why}", path.display());
        Failure::new(ExitCode::Settings, text).hint("`standfast drill keygen` makes one")
    };
    let failed = |error: std::io::Error| refuse(&error.to_string());
    let mode = std::fs::metadata(path)
        .map_err(failed)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(refuse("others than its owner may use it (chmod 600)"));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let seed = unhex::<32>(text.trim()).ok_or_else(|| refuse("expected 64 hex digits"))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The text of the report's file, signed if there is a key.
pub fn file_text(report: &Report, key: Option<&SigningKey>) -> String {
    let mut value = serde_json::to_value(report).expect("plain fields encode");
    let fields = value.as_object_mut().expect("a report is an object");
    if let Some(key) = key {
        let public = hex(key.verifying_key().as_bytes());
        fields.insert(PUBLIC_KEY.to_owned(), public.into());
        let signature = key.sign(&canonical(fields));
        fields.insert(SIGNATURE.to_owned(), hex(&signature.to_bytes()).into());
    }
    pretty(fields)
}

/// Proves a report's text; answers the report and the public key that signed it.
pub fn verify(text: &str, expected: Option<&str>) -> Result<(Report, String), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(mut fields) = value else {
        return Err("it is no report".to_owned());
    };
    if pretty(&fields) != text {
        return Err("it was changed: not written as a drill writes it".to_owned());
    }
    let signature = fields.remove(SIGNATURE);
    let public = fields.get(PUBLIC_KEY).and_then(Value::as_str);
    let (Some(Value::String(signature)), Some(public)) = (signature, public) else {
        return Err("it is not signed".to_owned());
    };
    let public = public.to_owned();
    if let Some(expected) = expected.filter(|key| !key.eq_ignore_ascii_case(&public)) {
        return Err(format!("it is signed by {public}, not by {expected}"));
    }
    let key = unhex::<32>(&public).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let key = key.ok_or("its public key is none")?;
    let signature = unhex::<64>(&signature).ok_or("its signature is none")?;
    key.verify_strict(&canonical(&fields), &Signature::from_bytes(&signature))
        .map_err(|_| "the signature does not fit: it was changed".to_owned())?;
    let report = serde_json::from_value(Value::Object(fields));
    let report = report.map_err(|error| format!("it is no report: {error}"))?;
    Ok((report, public))
}

fn canonical(fields: &Map<String, Value>) -> Vec<u8> {
    sorted(fields).to_string().into_bytes()
}

fn pretty(fields: &Map<String, Value>) -> String {
    let text = serde_json::to_string_pretty(&sorted(fields)).expect("a value encodes");
    format!("{text}\n")
}

/// With names in order at every depth, whatever order a map of the library keeps.
fn sorted(fields: &Map<String, Value>) -> Value {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(fields) => sorted(fields),
            Value::Array(items) => items.iter().map(sort).collect(),
            other => other.clone(),
        }
    }
    let mut names: Vec<&String> = fields.keys().collect();
    names.sort();
    let pairs = names
        .into_iter()
        .map(|name| (name.clone(), sort(&fields[name])));
    Value::Object(pairs.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn a_signed_report_is_proved_and_any_changed_byte_is_noticed() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let text = file_text(&sample(), Some(&key));
        let (report, public) = verify(&text, None).expect("as it was written");
        assert_eq!(report, sample());
        verify(&text, Some(&public.to_uppercase())).expect("by this key");
        let other = hex(SigningKey::from_bytes(&[8; 32]).verifying_key().as_bytes());
        assert!(
            verify(&text, Some(&other))
                .expect_err("another")
                .contains("not by")
        );
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                verify(&changed, Some(&public)).expect_err("a changed byte");
            }
        }
        verify(&format!("{text} "), None).expect_err("one byte more");
    }

    #[test]
    fn a_report_that_was_changed_and_signed_anew_has_another_key() {
        let [ours, theirs] = [[7; 32], [8; 32]].map(|seed| SigningKey::from_bytes(&seed));
        let text = file_text(&sample(), Some(&theirs));
        let ours = hex(ours.verifying_key().as_bytes());
        verify(&text, None).expect("by itself it looks well");
        verify(&text, Some(&ours)).expect_err("not by the cluster's key");
        let plain = file_text(&sample(), None);
        assert_eq!(
            verify(&plain, None).expect_err("no key"),
            "it is not signed"
        );
    }

    #[test]
    fn a_key_is_its_owners_alone_and_is_never_written_over() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("key");
        let public = generate(&path).expect("a new file");
        let key = load(&path).expect("just made");
        assert_eq!(hex(key.verifying_key().as_bytes()), public);
        assert_eq!(generate(&path).expect_err("there").code, ExitCode::Exists);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("own file");
        assert_eq!(load(&path).expect_err("open").code, ExitCode::Settings);
    }
}
