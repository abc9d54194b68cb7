//! The proofs of a restore drill: the served copy against what was restored and what is running.

use super::report::{Drill, seconds};
use super::restore::Primary;
use crate::cli::connect::Node;
use crate::cli::restore::Restored;
use crate::client::{Client, Options, Reply};
use std::time::{Duration, Instant};

/// How long an ordinary question may take, on a machine that has much else to do.
const ASKING: Duration = Duration::from_secs(60);
/// How long the books may take to be made again.
const AUDIT: Duration = Duration::from_secs(3600);
/// Keys and accounts of the sample.
const SAMPLE: &str = "100";

/// Proves the node at `address` by its client protocol. `began` is when the restore did.
pub fn copy(drill: &mut Drill, restored: &Restored, address: &str, began: Instant) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let open = drill.open("connect");
            drill.close::<()>(open, Err(error.to_string()));
            return;
        }
    };
    runtime.block_on(async {
        let open = drill.open("first proved read");
        let read = first_read(restored, address).await;
        let is_equal = read.is_ok();
        let client = drill.close(open, read);
        drill.report.measured.digests_equal = Some(is_equal);
        let Some(client) = client else { return };
        let measured = &mut drill.report.measured;
        measured.rto_seconds = Some(seconds(began.elapsed()));
        // What the backup holds is there once and not twice: the digest is of just that state.
        let behind = restored
            .newest
            .lsn
            .0
            .saturating_sub(restored.link.position.lsn.0);
        (measured.lost, measured.doubled) = (Some(behind), Some(0));
        let open = drill.open("audit of the ledger");
        let audited = audit(&client).await;
        drill.close(open, audited.map(|text| ((), text)));
        let open = drill.open("sample of keys");
        let read = sample_keys(&client).await;
        drill.close(open, read.map(|text| ((), text)));
        let open = drill.open("sample of accounts");
        let read = sample_accounts(&client).await;
        drill.close(open, read.map(|text| ((), text)));
    });
    let open = drill.open("quarantine");
    let refused = refuses_writes(address);
    drill.close(open, refused.map(|text| ((), text)));
}

fn told(error: &crate::client::Error) -> String {
    error.to_string()
}

/// The state served is the state restored, to the last byte: its digest says so.
async fn first_read(restored: &Restored, address: &str) -> Result<(Client, String), String> {
    let options = Options {
        timeout: ASKING,
        ..Options::default()
    };
    let client = Client::connect_with([address], options).await;
    let client = client.map_err(|e| told(&e))?;
    let reply = client.read(&["DIGEST"]).await.map_err(|e| told(&e))?;
    let Reply::Array(items) = &reply else {
        return Err(format!("an unexpected reply: {reply:?}"));
    };
    let served = items.get(1).and_then(Reply::text).unwrap_or_default();
    let expected = restored.digest.to_string();
    if served != expected {
        return Err(format!(
            "digest {served} is served, {expected} was restored"
        ));
    }
    let keys = client.read(&["DBSIZE"]).await.map_err(|e| told(&e))?;
    match keys {
        Reply::Int(keys) if u64::try_from(keys) == Ok(restored.keys) => {
            let text = format!("digest {served} as restored, {keys} keys");
            Ok((client, text))
        }
        other => Err(format!(
            "{other:?} keys are served, {} were restored",
            restored.keys
        )),
    }
}

async fn audit(client: &Client) -> Result<String, String> {
    let patient = client.with_timeout(AUDIT);
    let reply = patient.read(&["LEDGER.AUDIT"]).await;
    let reply = reply.map_err(|error| told(&error))?;
    Ok(format!("every balance made again: {}", words(&reply)))
}

/// A flat reply as words.
fn words(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        Reply::Int(number) => number.to_string(),
        other => other.text().unwrap_or("?").to_owned(),
    }
}

async fn sample_keys(client: &Client) -> Result<String, String> {
    let scan = client.read(&["SCAN", "0", "COUNT", SAMPLE]).await;
    let Reply::Array(page) = scan.map_err(|error| told(&error))? else {
        return Err("SCAN answers no page".to_owned());
    };
    let Some(Reply::Array(keys)) = page.get(1) else {
        return Err("SCAN answers no keys".to_owned());
    };
    let mut bytes = 0;
    for key in keys {
        let Reply::Bulk(key) = key else {
            return Err(format!("SCAN answers {key:?} as a key"));
        };
        let value = client.get(key).await.map_err(|error| told(&error))?;
        let name = String::from_utf8_lossy(key);
        bytes += value
            .ok_or_else(|| format!("{name} is listed and not there"))?
            .len();
    }
    Ok(format!("{} keys read, {bytes} bytes of values", keys.len()))
}

async fn sample_accounts(client: &Client) -> Result<String, String> {
    let query = client.read(&["ACCOUNT.QUERY", "LIMIT", SAMPLE]).await;
    let Reply::Array(page) = query.map_err(|error| told(&error))? else {
        return Err("ACCOUNT.QUERY answers no page".to_owned());
    };
    let Some(Reply::Array(accounts)) = page.get(1) else {
        return Err("ACCOUNT.QUERY answers no accounts".to_owned());
    };
    let ids: Vec<u128> = accounts.iter().filter_map(account_id).collect();
    if ids.len() != accounts.len() {
        return Err("an account without an id is listed".to_owned());
    }
    if ids.is_empty() {
        return Ok("there are no accounts".to_owned());
    }
    let found = client.lookup_accounts(&ids).await;
    let found = found.map_err(|error| told(&error))?.len();
    if found == ids.len() {
        Ok(format!("{found} accounts read"))
    } else {
        Err(format!(
            "{} accounts are listed, {found} are there",
            ids.len()
        ))
    }
}

/// The id in a flat account.
fn account_id(account: &Reply) -> Option<u128> {
    let Reply::Array(fields) = account else {
        return None;
    };
    let (pairs, _) = fields.as_chunks::<2>();
    let [_, id] = pairs.iter().find(|[name, _]| name.text() == Some("id"))?;
    match id {
        Reply::Int(id) => u128::try_from(*id).ok(),
        other => other.text()?.parse().ok(),
    }
}

/// The copy must not take writes: it is a past of a cluster that goes on.
fn refuses_writes(address: &str) -> Result<String, String> {
    let mut node = Node::open(address, ASKING).map_err(|failure| failure.in_short())?;
    let answer = node.command(&["SET", "standfast-drill", "1"], ASKING);
    match answer.map_err(|failure| failure.in_short())? {
        Err(_) => Ok("a write is refused".to_owned()),
        Ok(_) => Err("the restored node took a write".to_owned()),
    }
}

/// Holds the restored point against the cluster that runs: it must be a point of its history.
pub fn against_cluster(drill: &mut Drill, restored: &Restored, primary: Option<Primary>) {
    let Some(mut primary) = primary else {
        drill.unchecked("that the restored point belongs to the history of the running primary");
        return;
    };
    let position = restored.link.position;
    let open = drill.open("point in the cluster's history");
    let words = [
        "SEEN".to_owned(),
        restored.source.to_string(),
        position.epoch.0.to_string(),
        position.lsn.0.to_string(),
    ];
    let words = words.each_ref().map(String::as_str);
    let seen = primary.node.command(&words, ASKING);
    let seen = match seen {
        Err(failure) => Err(failure.in_short()),
        Ok(Err(refusal)) => Err(format!("{} says: {refusal}", primary.node.address)),
        Ok(Ok(_)) => {
            let address = &primary.node.address;
            Ok((
                (),
                format!(
                    "{address} has LSN {} of epoch {}",
                    position.lsn, position.epoch
                ),
            ))
        }
    };
    drill.close(open, seen);
    let status = &primary.answer.status;
    if status.applied != position.lsn.0 {
        drill.unchecked(format!(
            "the digest against the running primary at one LSN: it had applied LSN {} when the \
             drill began, the backup ends at {}",
            status.applied, position.lsn
        ));
        return;
    }
    let theirs = primary.answer.json["digest"].as_str().unwrap_or_default();
    let ours = restored.digest.to_string();
    let is_equal = theirs == ours;
    drill.step("digest of the primary", || {
        if is_equal {
            Ok(((), format!("{theirs} at LSN {}, as restored", position.lsn)))
        } else {
            Err(format!(
                "it had {theirs} at LSN {}, {ours} was restored",
                position.lsn
            ))
        }
    });
    let measured = &mut drill.report.measured;
    measured.digests_equal = Some(is_equal && measured.digests_equal == Some(true));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_account_is_found_by_its_id() {
        let word = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let account = Reply::Array(vec![word("ledger"), word("1"), word("id"), word("700")]);
        assert_eq!(account_id(&account), Some(700));
        assert_eq!(account_id(&Reply::Array(vec![word("id")])), None);
        assert_eq!(account_id(&Reply::Nil), None);
        assert_eq!(words(&account), "ledger 1 id 700");
    }
}
