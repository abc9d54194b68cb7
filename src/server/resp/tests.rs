//! Any cut of the stream gives the same commands; nothing a client sends panics or takes memory
//! it did not send.

#![expect(
    clippy::indexing_slicing,
    reason = "a wrong index of a test fails the test"
)]

use super::*;
use crate::state::Reply;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    args_max: 8,
    bulk_bytes_max: 64,
    inline_bytes_max: 48,
    command_bytes_max: 256,
};

type Commands = Vec<Vec<Vec<u8>>>;

/// Feeds the pieces one after another, as reads would bring them.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Commands, Option<ProtocolError>) {
    let mut decoder = Decoder::new(LIMITS);
    let mut buffer = BytesMut::new();
    let (mut commands, mut args) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        decoder.feed(&mut buffer);
        loop {
            match decoder.next(&mut args) {
                Ok(true) => commands.push(args.iter().map(|arg| arg.to_vec()).collect()),
                Ok(false) => break,
                Err(error) => {
                    assert!(!decoder.is_drained());
                    return (commands, Some(error));
                }
            }
        }
        assert!(decoder.is_drained());
        assert!(
            buffer.len() <= LIMITS.command_bytes_max + 2,
            "unfinished bytes are bounded"
        );
        assert!(decoder.spans.len() <= LIMITS.args_max);
    }
    (commands, None)
}

fn decode_whole(stream: &[u8]) -> (Commands, Option<ProtocolError>) {
    decode(std::iter::once(stream))
}

fn command(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.to_vec()).collect()
}

const STREAM: &[u8] =
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n\r\n*0\r\n*-1\r\nPING \"a b\"\r\n  \r\n\
    *1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\nECHO 'it\\'s' \"\\x41\\n\"\nQUIT\r\n";

#[test]
fn every_cut_of_a_stream_gives_the_same_commands() {
    let expected: Commands = vec![
        command(&[b"SET", b"k", b"a\r\nb"]),
        command(&[b"PING", b"a b"]),
        command(&[b"PING"]),
        command(&[b"GET", b""]),
        command(&[b"ECHO", b"it's", b"A\n"]),
        command(&[b"QUIT"]),
    ];
    assert_eq!(decode_whole(STREAM), (expected.clone(), None));
    assert_eq!(decode(STREAM.chunks(1)), (expected.clone(), None));
    for first in 0..STREAM.len() {
        for second in first..STREAM.len() {
            let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
            assert_eq!(
                decode(pieces.into_iter()),
                (expected.clone(), None),
                "{first} {second}"
            );
        }
    }
}

#[test]
fn a_truncated_stream_gives_a_prefix_of_the_commands_and_no_error() {
    let (all, _) = decode_whole(STREAM);
    for end in 0..STREAM.len() {
        let (commands, error) = decode_whole(&STREAM[..end]);
        assert_eq!(error, None, "{end}");
        assert!(all.starts_with(&commands), "{end}");
    }
}

#[test]
fn what_is_not_resp_gets_the_text_of_redis_after_the_commands_before_it() {
    let long = [b'a'; 60];
    let table: &[(&[u8], &str)] = &[
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*9\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$65\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (
            b"*1\r\n$1\r\nabc\r\n",
            "expected a line end after an argument",
        ),
        (b"GET \"a\r\n", "unbalanced quotes in request"),
        (b"GET 'a'b\r\n", "unbalanced quotes in request"),
        (&long, "too big inline request"),
        (
            b"*000000000000000000000000000000000000000000000000001",
            "too big mbulk count string",
        ),
    ];
    for (bytes, text) in table {
        for good_before in [&b""[..], b"PING\r\n", b"*1\r\n$4\r\nPING\r\n"] {
            let stream = [good_before, *bytes].concat();
            for pieces in [vec![&stream[..]], stream.chunks(1).collect()] {
                let (commands, error) = decode(pieces.into_iter());
                assert_eq!(
                    commands.len(),
                    usize::from(!good_before.is_empty()),
                    "{text}"
                );
                let said = error.map(|error| error.to_string());
                assert_eq!(said, Some(format!("ERR Protocol error: {text}")));
            }
        }
    }
}

#[test]
fn a_command_of_many_arguments_is_refused_before_its_bytes_are_kept() {
    let mut stream = b"*8\r\n".to_vec();
    for _ in 0..8 {
        stream.extend_from_slice(b"$60\r\n");
        stream.extend_from_slice(&[b'x'; 60]);
        stream.extend_from_slice(b"\r\n");
    }
    assert_eq!(
        decode(stream.chunks(1)).1,
        Some(ProtocolError::CommandTooBig)
    );
}

#[test]
fn a_declared_length_takes_no_memory() {
    let mut decoder = Decoder::new(Limits {
        bulk_bytes_max: 1 << 29,
        args_max: 1 << 20,
        command_bytes_max: 1 << 30,
        ..LIMITS
    });
    let mut buffer = BytesMut::from(&b"*1000000\r\n$500000000\r\nabc"[..]);
    let capacity = buffer.capacity();
    decoder.feed(&mut buffer);
    assert!(buffer.capacity() <= capacity && decoder.spans.capacity() < 64);
}

#[test]
fn arguments_of_one_read_share_one_buffer() {
    let mut decoder = Decoder::new(LIMITS);
    let mut buffer = BytesMut::from(STREAM);
    let (start, end) = (
        buffer.as_ptr() as usize,
        buffer.as_ptr() as usize + STREAM.len(),
    );
    decoder.feed(&mut buffer);
    let mut args = Vec::new();
    assert!(decoder.next(&mut args).expect("valid"));
    for arg in &args {
        let at = arg.as_ptr() as usize;
        assert!(start <= at && at + arg.len() <= end, "not copied");
    }
}

#[test]
fn replies_look_as_each_protocol_wants_them() {
    let reply = Reply::Array(vec![
        Reply::Ok,
        Reply::Nil,
        Reply::NilArray,
        Reply::Int(-5),
        Reply::Simple("PONG"),
        Reply::Bulk("a\r\nb".into()),
        Reply::Map(vec![(Reply::Bulk("k".into()), Reply::Int(1))]),
        Reply::Error("ERR two\r\nlines".into()),
    ]);
    let written = |protocol| {
        let mut out = BytesMut::new();
        write(&reply, protocol, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    };
    let both = ":-5\r\n+PONG\r\n$4\r\na\r\nb\r\n";
    let last = "$1\r\nk\r\n:1\r\n-ERR two  lines\r\n";
    let resp2 = format!("*8\r\n+OK\r\n$-1\r\n*-1\r\n{both}*2\r\n{last}");
    let resp3 = format!("*8\r\n+OK\r\n_\r\n_\r\n{both}%1\r\n{last}");
    assert_eq!(written(Protocol::Resp2), resp2);
    assert_eq!(written(Protocol::Resp3), resp3);
}

/// Bytes that look like RESP often enough to get deep into the decoder.
fn resp_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::sample::select(vec![
            "*",
            "$",
            "\r\n",
            "*1\r\n",
            "*2\r\n",
            "$0\r\n\r\n",
            "\n",
            "\""
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        (0usize..70).prop_map(|len| {
            [format!("${len}\r\n").as_bytes(), &vec![b'v'; len], b"\r\n"].concat()
        }),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_commands_and_error(
        stream in resp_like(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]);
        prop_assert_eq!(decode(pieces), decode_whole(&stream));
    }

    #[test]
    fn any_arguments_come_back_as_they_were_sent(
        sent in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5), 0..5),
    ) {
        let mut stream = Vec::new();
        for args in &sent {
            stream.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            for arg in args {
                stream.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                stream.extend_from_slice(arg);
                stream.extend_from_slice(b"\r\n");
            }
        }
        prop_assert_eq!(decode_whole(&stream), (sent, None));
    }
}
