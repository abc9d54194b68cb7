//! RESP: the decoder, inline commands, and the parse of a command from its words.
//!
//! Asserted: any cut of a stream gives the same commands and the same error; nothing exceeds the
//! limits; memory stays near what was sent; words written as RESP read back; a parsed command
//! encodes within what `limits` allows for it, and decodes to itself.

use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::pieces;
use bytes::{Bytes, BytesMut};
use standfast::limits;
use standfast::server::command::{self, Context, Parsed};
use standfast::server::resp::{Decoder, Limits, ProtocolError};
use standfast::state::Command;
use standfast::state::command::may_grow;

pub const TARGET: Target = Target {
    name: "resp",
    decodes: "server/resp (frames, inline commands), server/command (find, parse, keys_of)",
    run,
    marks: &["error", "for the state", "for the session", "refused"],
    seeds,
};

/// Small enough for short inputs to pass them.
const SMALL: Limits = Limits {
    args_max: 32,
    bulk_bytes_max: 64,
    inline_bytes_max: 48,
    command_bytes_max: 256,
};

/// As a node has them.
const REAL: Limits = Limits {
    args_max: limits::ARGUMENTS_MAX,
    bulk_bytes_max: limits::BULK_BYTES_MAX,
    inline_bytes_max: limits::INLINE_BYTES_MAX,
    command_bytes_max: limits::REQUEST_BYTES_MAX
        + limits::ARGUMENTS_MAX * limits::ARGUMENT_OVERHEAD_BYTES,
};

/// An argument takes 6 bytes on the wire at least ("$0", line ends), one of an inline command 2;
/// a span is 8 bytes and a handed-out argument 32, and what grows doubles.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: 4 << 10,
};

const CONTEXT: Context = Context {
    once_ttl_ms: 86_400_000,
    once_max: 1_000_000,
    seed: 7,
};

type Words = Vec<Bytes>;
type Heard = (Vec<Words>, Option<ProtocolError>);

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let limits = if how.has(How::REPAIRED) { REAL } else { SMALL };
    let seed = u64::from(how.choice());
    let whole = MEMORY.hold(bytes.len(), || decode(&limits, &[bytes]));
    let cut = MEMORY.hold(bytes.len(), || decode(&limits, &pieces(bytes, seed)));
    assert_eq!(whole, cut, "the same bytes, cut up otherwise");
    let (commands, error) = whole;
    if let Some(error) = error {
        hit("error");
        assert!(error.to_string().starts_with("ERR Protocol error: "));
    }
    for words in &commands {
        assert!(words.len() <= limits.args_max);
        let longest = limits.bulk_bytes_max.max(limits.inline_bytes_max);
        assert!(words.iter().all(|word| word.len() <= longest));
        if !words.is_empty() {
            written_reads_back(words);
            parse(words);
        }
    }
}

fn decode(limits: &Limits, pieces: &[&[u8]]) -> Heard {
    let mut decoder = Decoder::new(*limits);
    let mut buffer = BytesMut::new();
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        decoder.feed(&mut buffer);
        loop {
            match decoder.next(&mut words) {
                Ok(true) => commands.push(words.clone()),
                Ok(false) => break,
                Err(error) => {
                    assert!(!decoder.is_drained(), "an error stays");
                    assert_eq!(decoder.next(&mut words), Err(error.clone()));
                    return (commands, Some(error));
                }
            }
        }
        assert!(decoder.is_drained());
        assert!(
            buffer.len() <= limits.command_bytes_max + 2,
            "{} bytes wait for the rest of a command",
            buffer.len()
        );
    }
    (commands, None)
}

fn written_reads_back(words: &Words) {
    let mut stream = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        stream.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        stream.extend_from_slice(word);
        stream.extend_from_slice(b"\r\n");
    }
    assert_eq!(decode(&REAL, &[&stream]), (vec![words.clone()], None));
}

/// Parses the words as a session does.
fn parse(words: &Words) {
    let spec = match command::find(words) {
        Ok(spec) => spec,
        Err(refusal) => return assert!(!refusal.to_string().is_empty()),
    };
    let keys = command::keys_of(spec, words);
    assert!(keys.len() <= words.len());
    match command::parse(spec, words, &CONTEXT) {
        Ok(Parsed::Data(command)) => {
            hit("for the state");
            encodes(words, &command);
        }
        Ok(Parsed::Session(_) | Parsed::OnceExec { .. }) => hit("for the session"),
        Err(refusal) => {
            hit("refused");
            assert!(!refusal.to_string().is_empty());
        }
    }
}

fn encodes(words: &Words, command: &Command) {
    let mut encoded = BytesMut::new();
    command.encode(&mut encoded);
    let encoded = encoded.freeze();
    let said: usize = words.iter().map(Bytes::len).sum();
    let most =
        said + words.len() * limits::ARGUMENT_OVERHEAD_BYTES + limits::COMMAND_OVERHEAD_BYTES;
    assert!(
        encoded.len() <= most,
        "{} bytes in the log for {said} from the client",
        encoded.len()
    );
    assert_eq!(may_grow(&encoded), command.may_grow(), "{command:?}");
    let back = Command::from_encoded(encoded).expect("what a client asked for can be logged");
    assert_eq!(&back, command);
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let streams: [&[u8]; 9] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n",
        b"*0\r\n*-1\r\n\r\n  \r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        b"SET key \"a \\x41\\n b\" EX 10 NX\r\nECHO 'it\\'s'\r\nGET \"open\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$65\r\n",
        b"*5\r\n$4\r\nONCE\r\n$3\r\nt-1\r\n$6\r\nINCRBY\r\n$1\r\nk\r\n$2\r\n-5\r\n",
        b"MSET a 1 b 2\r\nDEL a b c\r\nSCAN 0 MATCH a* COUNT 5 TYPE string\r\nKEYS *\r\n",
        b"ONCE t EXEC\r\nONCE t ONCE u GET k\r\nSETRANGE k 5 v\r\nGETRANGE k 0 -1\r\n",
        b"EXPIRE k 10 NX\r\nPEXPIREAT k 99999999999999 GT\r\nGETEX k PERSIST\r\nCOPY a b REPLACE\r\n",
        b"HELLO 3 SETNAME x\r\nMULTI\r\nWATCH a b\r\nEXEC\r\nCLIENT LIST\r\n*600000\r\n",
    ];
    for stream in streams {
        seeds.push(join(How::of(0, 3), stream));
        seeds.push(join(How::of(How::REPAIRED, 1), stream));
    }
    seeds
}
