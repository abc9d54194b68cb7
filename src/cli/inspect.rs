//! `inspect`: prints what is in a file of a stopped node, and where it is damaged. Changes nothing.

use super::exit::{ExitCode, Failure, Outcome};
use crate::node::meta::{self, MetaFile};
use crate::replication::EpochEntry;
use crate::state::command::iter;
use crate::state::{Attestation, Command};
use serde_json::{Value, json};
use standfast_snapshot::{BlockHead, Reader, SegmentRef};
use standfast_wal::scan::{Entry, Rest, Scan};
use standfast_wal::segment::{self, HEADER_AREA, Header, HeaderDamage};
use standfast_wal::{Kind, Lsn, Record};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prints what is in a file of a node
#[derive(clap::Subcommand, Debug)]
pub enum Inspect {
    /// Segments of the log: a file, or a directory with all its segments
    Wal {
        path: PathBuf,
        /// Begin with the record that holds this LSN
        #[arg(long, value_name = "LSN", default_value_t = 0)]
        from: u64,
        /// End with the record that holds this LSN
        #[arg(long, value_name = "LSN", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
        /// Print each command as well
        #[arg(long)]
        commands: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// A snapshot: header, blocks, checksums
    Snapshot {
        path: PathBuf,
        /// Print each block as well
        #[arg(long)]
        blocks: bool,
        #[arg(long)]
        json: bool,
    },
    Differing(super::differing::Differing),
    /// The meta file: identity, fence, register; a file or a data directory
    Meta {
        path: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &Inspect) -> Outcome {
    // Through a buffer: a segment has many records.
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let outcome = print_to(command, &mut out);
    // `inspect … | head` has had enough: no failure.
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::Done),
        Err(error) => Err(error.into()),
        Ok(()) => outcome,
    }
}

fn print_to(command: &Inspect, out: &mut dyn Write) -> Outcome {
    match command {
        Inspect::Wal {
            path,
            from,
            to,
            commands,
            json,
        } => {
            let wanted = Wanted {
                from: Lsn(*from),
                to: Lsn(*to),
                commands: *commands,
                json: *json,
            };
            wal(path, &wanted, out)
        }
        Inspect::Snapshot { path, blocks, json } => snapshot(path, *blocks, *json, out),
        Inspect::Differing(args) => super::differing::run(args, out),
        Inspect::Meta { path, json } => meta(path, *json, out),
    }
}

/// What of a log is to be printed.
struct Wanted {
    from: Lsn,
    to: Lsn,
    commands: bool,
    json: bool,
}

impl Wanted {
    fn say(&self, out: &mut dyn Write, text: &str, value: &Value) -> Result<(), Failure> {
        if self.json {
            writeln!(out, "{value}")?;
        } else {
            writeln!(out, "{text}")?;
        }
        Ok(())
    }
}

fn damaged(file: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Damaged, format!("{}: {what}", file.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::new(ExitCode::Failed, format!("{}: {error}", path.display())))
}

/// One segment, or all of a directory in order.
fn wal(path: &Path, wanted: &Wanted, out: &mut dyn Write) -> Outcome {
    if !path.is_dir() {
        return file(path, wanted, out);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if segment::first_lsn_of(&name).is_some() {
            names.push(name);
        }
    }
    if names.is_empty() {
        let text = format!("{} holds no segment of a log", path.display());
        return Err(Failure::new(ExitCode::Usage, text));
    }
    names.sort();
    let mut code = ExitCode::Done;
    for name in names {
        if file(&path.join(name), wanted, out)? != ExitCode::Done {
            code = ExitCode::Damaged;
        }
    }
    Ok(code)
}

fn file(path: &Path, wanted: &Wanted, out: &mut dyn Write) -> Outcome {
    let bytes = read(path)?;
    let area = usize::try_from(HEADER_AREA).expect("4 KiB fit");
    let area = bytes.get(..area).unwrap_or(&bytes);
    let (header, whole) = Header::decode(area).map_err(|damage| match damage {
        HeaderDamage::Bytes => damaged(path, "no sound header: not a segment, or damaged"),
        HeaderDamage::Version(found) => damaged(
            path,
            format!("format version {found} is not known to this program"),
        ),
    })?;
    say_header(path, &header, whole, wanted, out)?;
    let mut code = if whole {
        ExitCode::Done
    } else {
        ExitCode::Damaged
    };
    let mut scan = Scan::new(&bytes, &header);
    loop {
        match scan.step() {
            Ok(entry) => say_record(&bytes, &entry, wanted, out)?,
            Err(damage) => {
                let rest = scan.rest();
                if rest == Rest::Zeros {
                    say_end(
                        &scan,
                        "ends here: zeros to the end of the file",
                        wanted,
                        out,
                    )?;
                    return Ok(code);
                }
                code = ExitCode::Damaged;
                let what = match rest {
                    Rest::Unfinished => "a write breaks off here".to_owned(),
                    _ => format!("DAMAGE: {damage}"),
                };
                say_end(&scan, &what, wanted, out)?;
                if scan
                    .resume(&path.display().to_string(), Lsn(u64::MAX - 1))
                    .is_none()
                {
                    return Ok(code);
                }
                say_end(&scan, "goes on here", wanted, out)?;
            }
        }
    }
}

fn say_header(
    path: &Path,
    header: &Header,
    whole: bool,
    wanted: &Wanted,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let note = if whole {
        ""
    } else {
        "\n  DAMAGE: one of the two copies of the header"
    };
    let text = format!(
        "{}: segment of node {} from LSN {}, history {}\n  cluster {}, incarnation {}{note}",
        path.display(),
        header.identity.node,
        header.first_lsn(),
        header.history,
        header.identity.cluster,
        header.identity.incarnation,
    );
    let value = json!({
        "file": path.display().to_string(),
        "node": header.identity.node.0,
        "cluster": header.identity.cluster.to_string(),
        "incarnation": header.identity.incarnation.to_string(),
        "history": header.history.to_string(),
        "first_lsn": header.first_lsn().0,
        "base": header.base.position.to_string(),
        "segment_bytes": header.segment_bytes,
        "header_whole": whole,
    });
    wanted.say(out, &text, &value)
}

fn say_end(
    scan: &Scan<'_>,
    what: &str,
    wanted: &Wanted,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let text = format!("{:>10}  {what}, behind {}", scan.offset, scan.link.position);
    let value = json!({
        "offset": scan.offset, "what": what, "behind": scan.link.position.to_string(),
        "durable_through": scan.durable_through.0,
    });
    wanted.say(out, &text, &value)
}

fn say_record(
    bytes: &[u8],
    entry: &Entry,
    wanted: &Wanted,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let slice = bytes
        .get(entry.record_at()..entry.end())
        .unwrap_or_default();
    let record = Record::split_from(&mut bytes::Bytes::copy_from_slice(slice))
        .expect("the walk has checked it");
    if record.last_lsn() < wanted.from || record.first_lsn() > wanted.to {
        return Ok(());
    }
    let stamp = entry.stamp.map_or("stamp damaged".to_owned(), |stamp| {
        format!("durable through {}", stamp.durable_through)
    });
    let detail = detail(&record);
    let text = format!(
        "{:>10}  {record:?}  {}  {} bytes  chain {:08x}  {stamp}{}",
        entry.offset,
        time(record.timestamp()),
        entry.head.size,
        record.chain().0,
        detail
            .as_ref()
            .map(|detail| format!("\n            {detail}"))
            .unwrap_or_default(),
    );
    let commands: Vec<(Lsn, String)> = if wanted.commands {
        commands(&record).collect()
    } else {
        Vec::new()
    };
    let value = json!({
        "offset": entry.offset,
        "kind": format!("{:?}", record.kind()),
        "epoch": record.epoch().0,
        "first_lsn": record.first_lsn().0,
        "last_lsn": record.last_lsn().0,
        "timestamp_ns": record.timestamp(),
        "bytes": entry.head.size,
        "chain": format!("{:08x}", record.chain().0),
        "durable_through": entry.stamp.map(|stamp| stamp.durable_through.0),
        "detail": detail,
        "commands": commands.iter().map(|(lsn, text)| json!({"lsn": lsn.0, "command": text}))
            .collect::<Vec<_>>(),
    });
    wanted.say(out, &text, &value)?;
    if !wanted.json {
        for (lsn, text) in commands {
            writeln!(out, "            {lsn}  {text}")?;
        }
    }
    Ok(())
}

/// What a record other than of commands says.
fn detail(record: &Record) -> Option<String> {
    let payload = record.payload();
    match record.kind() {
        Kind::Commands | Kind::Tick => None,
        Kind::EpochStart => EpochEntry::decode(record).map(|entry| {
            format!(
                "node {} is primary, nonce {}, history {}",
                entry.primary, entry.nonce, entry.history
            )
        }),
        Kind::Attestation => Attestation::decode(&payload).map(|attestation| {
            format!(
                "state at LSN {} has digest {}",
                attestation.lsn, attestation.digest
            )
        }),
        Kind::Operator => Some(String::from_utf8_lossy(&payload).into_owned()),
    }
}

fn commands(record: &Record) -> impl Iterator<Item = (Lsn, String)> {
    let first = record.first_lsn().0;
    let payload = match record.kind() {
        Kind::Commands => record.payload(),
        _ => bytes::Bytes::new(),
    };
    (first..).map(Lsn).zip(iter(payload)).map(|(lsn, command)| {
        let command = command.and_then(|mut command| Command::decode(&mut command));
        let text = match command {
            Ok(command) => format!("{command:?}"),
            Err(error) => format!("not readable: {error}"),
        };
        (lsn, text)
    })
}

/// Log time for people.
fn time(ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(ns));
    time.map_or_else(|_| format!("{ns} ns"), |time| time.to_string())
}

fn snapshot(path: &Path, blocks: bool, as_json: bool, out: &mut dyn Write) -> Outcome {
    let plain =
        |error: standfast_snapshot::Error| Failure::new(ExitCode::Damaged, error.to_string());
    let reader = Reader::open(path).map_err(plain)?;
    // The whole file, then each block by itself: both are promised.
    reader.check_whole().map_err(plain)?;
    let held = reader
        .load(1, |_, bytes| Ok(bytes.len() as u64))
        .map_err(plain)?;
    let (parts, segments): (Vec<_>, Vec<_>) = reader
        .references()
        .map_err(plain)?
        .into_iter()
        .partition(SegmentRef::is_part);
    let segment_bytes: u64 = segments.iter().map(|one| one.bytes).sum();
    let header = reader.header();
    let digest = format!("{:032x}", header.digest);
    let heads: Vec<_> = reader.blocks().copied().collect();
    if as_json {
        let value = json!({
            "file": path.display().to_string(),
            "cluster": header.cluster.to_string(),
            "cluster_name": header.cluster_name,
            "node": header.node.0,
            "history": header.history.to_string(),
            "lsn": header.link.position.lsn.0,
            "epoch": header.link.position.epoch.0,
            "timestamp_ns": header.link.timestamp,
            "digest": digest,
            "counts": header.counts,
            "blocks": heads.len(),
            "bytes": reader.file_bytes(),
            "raw_bytes": reader.raw_bytes(),
            "parts": parts.len(),
            "segments": segments.len(),
            "segment_bytes": segment_bytes,
        });
        writeln!(out, "{value}")?;
        return Ok(ExitCode::Done);
    }
    writeln!(
        out,
        "{}: snapshot at {} of {}, history {}, by node {} of cluster {:?}\n  log time {}\n  digest \
         {digest}\n  counts {:?}\n  {} blocks, {} bytes, {} before compression: all sound\n  \
         refers to {} segments of {} bytes in all",
        path.display(),
        header.link.position.lsn,
        header.link.position.epoch,
        header.history,
        header.node,
        header.cluster_name,
        time(header.link.timestamp),
        header.counts,
        heads.len(),
        reader.file_bytes(),
        held.iter().sum::<u64>(),
        segments.len(),
        segment_bytes,
    )?;
    if !parts.is_empty() {
        let parts = parts.len();
        writeln!(
            out,
            "  its state is in {parts} parts of its archive: not looked at"
        )?;
    }
    if blocks {
        list_blocks(&heads, out)?;
    }
    Ok(ExitCode::Done)
}

fn list_blocks(heads: &[BlockHead], out: &mut dyn Write) -> std::io::Result<()> {
    for head in heads {
        writeln!(
            out,
            "{:>10}  section {}  {}..{}  {} bytes, {} stored",
            head.number, head.section, head.first, head.last, head.raw_bytes, head.stored_bytes
        )?;
    }
    Ok(())
}

fn meta(path: &Path, as_json: bool, out: &mut dyn Write) -> Outcome {
    let path = if path.is_dir() {
        path.join(meta::FILE)
    } else {
        path.to_owned()
    };
    let file = MetaFile::decode(&read(&path)?).map_err(|error| damaged(&path, error))?;
    let (core, config) = (&file.core, &file.core.config);
    let ids = |ids: &std::collections::BTreeSet<standfast_wal::NodeId>| {
        ids.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    if as_json {
        let members = config.members.iter().map(|(id, member)| {
            json!({
                "id": id.0, "incarnation": member.incarnation.to_string(), "role": member.role,
                "site": member.site, "priority": member.priority,
                "client": member.addresses.client, "peer": member.addresses.peer,
                "http": member.addresses.http,
            })
        });
        let value = json!({
            "cluster": core.cluster.to_string(), "cluster_name": file.cluster_name,
            "node": core.node.0, "incarnation": core.incarnation.to_string(),
            "quarantined": file.quarantined, "suspect": core.suspect,
            "fence": core.fence.to_string(),
            "config": {
                "history": config.history.to_string(), "epoch": config.epoch.0,
                "version": config.version, "primary": config.primary.0,
                "sync_set": ids(&config.sync_set), "voters": ids(&config.voters),
                "acks": config.acks, "acks_needed": config.acks_needed,
                "protection": config.protection, "members": members.collect::<Vec<_>>(),
            },
        });
        writeln!(out, "{value}")?;
        return Ok(ExitCode::Done);
    }
    writeln!(
        out,
        "{}: node {} of cluster {:?}\n  cluster {}, incarnation {}\n  fence {}{}{}\n  register \
         version {}: history {}, epoch {}, primary {}, sync set {:?}, acks needed {}, voters {:?}",
        path.display(),
        core.node,
        file.cluster_name,
        core.cluster,
        core.incarnation,
        core.fence,
        if core.suspect { ", log suspect" } else { "" },
        if file.quarantined {
            ", not activated"
        } else {
            ""
        },
        config.version,
        config.history,
        config.epoch,
        config.primary,
        ids(&config.sync_set),
        config.acks_needed,
        ids(&config.voters),
    )?;
    for (id, member) in &config.members {
        writeln!(
            out,
            "  node {id}: {:?}, site {:?}, clients {}, peers {}",
            member.role, member.site, member.addresses.client, member.addresses.peer
        )?;
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use standfast_wal::segment::{STAMP_BYTES, Stamp};
    use standfast_wal::{ClusterId, Epoch, History, Identity, Incarnation, Link, NodeId};

    /// A segment with two records of one command each.
    fn segment() -> Vec<u8> {
        let header = Header {
            identity: Identity {
                cluster: ClusterId(1),
                node: NodeId(2),
                incarnation: Incarnation(3),
            },
            history: History {
                generation: 1,
                id: 4,
            },
            base: Link::default(),
            segment_bytes: 16 << 10,
            previous_first_lsn: Lsn(0),
        };
        let mut bytes = header.encode();
        let mut link = header.base;
        for number in 1..3 {
            let payload = format!("{{\"what\":\"order {number}\"}}");
            let record = Record::build(
                link,
                Kind::Operator,
                Epoch(1),
                number,
                1,
                payload.as_bytes(),
            );
            put_stamp(&mut bytes, &header);
            bytes.extend_from_slice(record.bytes());
            link = record.link();
        }
        put_stamp(&mut bytes, &header);
        bytes.resize(16 << 10, 0);
        bytes
    }

    fn put_stamp(bytes: &mut Vec<u8>, header: &Header) {
        let stamp = Stamp {
            durable_through: Lsn(0),
            sealed: false,
        };
        let offset = bytes.len() as u64;
        bytes.extend_from_slice(&stamp.encode(header.salt(), offset));
    }

    fn print(bytes: &[u8], json: bool) -> (Outcome, String) {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join(segment::name(Lsn(1)));
        std::fs::write(&path, bytes).expect("a scratch file");
        let wanted = Wanted {
            from: Lsn(0),
            to: Lsn(u64::MAX),
            commands: true,
            json,
        };
        let mut out = Vec::new();
        let outcome = wal(dir.path(), &wanted, &mut out);
        (outcome, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_sound_segment_is_printed_to_its_end() {
        let (outcome, text) = print(&segment(), false);
        assert_eq!(outcome.expect("sound"), ExitCode::Done, "{text}");
        assert!(text.contains("segment of node 2 from LSN 1"), "{text}");
        assert!(text.contains("Operator @1 2..2"), "{text}");
        assert!(text.contains("order 2"), "{text}");
        assert!(
            text.ends_with("zeros to the end of the file, behind 2@1\n"),
            "{text}"
        );
        let (_, lines) = print(&segment(), true);
        for line in lines.lines() {
            serde_json::from_str::<Value>(line).expect("one JSON object a line");
        }
        assert_eq!(lines.lines().count(), 4);
    }

    #[test]
    fn damage_is_named_with_its_place_and_what_is_behind_it_is_found() {
        let mut bytes = segment();
        let at = 4096 + STAMP_BYTES + 50;
        bytes[at] ^= 1;
        let (outcome, text) = print(&bytes, false);
        assert_eq!(outcome.expect("readable"), ExitCode::Damaged);
        assert!(
            text.contains("      4096  DAMAGE: the payload's checksum"),
            "{text}"
        );
        assert!(text.contains("goes on here, behind 1@1"), "{text}");
        assert!(text.contains("order 2"), "{text}");
        bytes[10] ^= 1;
        assert!(
            print(&bytes, false)
                .1
                .contains("one of the two copies of the header")
        );
        bytes[2048 + 10] ^= 1;
        assert_eq!(
            print(&bytes, false).0.expect_err("no header").code,
            ExitCode::Damaged
        );
    }

    fn drop_key() -> Command {
        Command::GetDel {
            key: bytes::Bytes::from_static(b"k"),
        }
    }

    #[test]
    fn the_commands_of_a_record_are_numbered_by_their_lsns() {
        let mut payload = BytesMut::new();
        let after = Link::default();
        for _ in 0..2 {
            let mut encoded = BytesMut::new();
            drop_key().encode(&mut encoded);
            crate::state::command::push(&mut payload, &encoded);
        }
        let record = Record::build(after, Kind::Commands, Epoch(1), 1, 2, &payload);
        let found: Vec<_> = commands(&record).collect();
        let expected = format!("{:?}", drop_key());
        assert_eq!(found, [(Lsn(1), expected.clone()), (Lsn(2), expected)]);
    }
}
