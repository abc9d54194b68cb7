//! What a reply means for the call that it answers; pure.

use super::{Position, Reply};

/// What is to be done with a call after its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The caller's.
    Final,
    /// Never ordered here: another node is primary, or this one is again soon. The address, if the
    /// node names one, only shortens the search.
    Elsewhere(Option<String>),
    /// Ordered there, and not known yet.
    Unknown(Position),
}

/// Refusals of a node that is not, or not yet, or no longer primary.
const ELSEWHERE: [&str; 4] = ["READONLY", "CLUSTERDOWN", "LOADING", "MASTERDOWN"];
/// What stands before an address in them.
const POINTERS: [&str; 2] = ["the primary is at ", "go on at "];

impl Verdict {
    pub fn of(reply: &Reply) -> Verdict {
        let Reply::Error(text) = reply else {
            return Verdict::Final;
        };
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        if ELSEWHERE.contains(&code) {
            let address = POINTERS.iter().find_map(|pointer| rest.split_once(pointer));
            let address = address.map(|(_, address)| address.trim().to_owned());
            return Verdict::Elsewhere(address);
        }
        match position(rest) {
            Some(position) if code == "UNKNOWN" => Verdict::Unknown(position),
            _ => Verdict::Final,
        }
    }
}

fn position(text: &str) -> Option<Position> {
    let mut numbers = text.split(' ').map(|word| word.parse().ok());
    Some(Position {
        generation: numbers.next()??,
        epoch: numbers.next()??,
        lsn: numbers.next()??,
    })
}

/// What OUTCOME says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done(Reply),
    /// Done, and the reply is not kept.
    ReplyGone,
    Pending,
    Never,
    /// The node cannot tell.
    NotKnown,
}

impl Outcome {
    pub fn of(reply: Reply) -> Outcome {
        let Reply::Array(items) = reply else {
            return Outcome::NotKnown;
        };
        let mut items = items.into_iter();
        let word = items.next();
        match (word.as_ref().and_then(Reply::text), items.next()) {
            (Some("done"), Some(reply)) => Outcome::Done(reply),
            (Some("done"), None) => Outcome::ReplyGone,
            (Some("pending"), _) => Outcome::Pending,
            (Some("never"), _) => Outcome::Never,
            _ => Outcome::NotKnown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn error(text: &str) -> Verdict {
        Verdict::of(&Reply::Error(text.to_owned()))
    }

    #[test]
    fn refusals_of_nodes_that_are_not_primary_lead_elsewhere() {
        let there = Some("10.0.0.1:6379".to_owned());
        let backup = "READONLY You can't write against a backup, nor read from it without \
                      READONLY; the primary is at 10.0.0.1:6379";
        assert_eq!(error(backup), Verdict::Elsewhere(there.clone()));
        let handing_over = "READONLY the primary hands over; go on at 10.0.0.1:6379";
        assert_eq!(error(handing_over), Verdict::Elsewhere(there));
        assert_eq!(
            error("CLUSTERDOWN no primary is known"),
            Verdict::Elsewhere(None)
        );
        assert_eq!(error("LOADING"), Verdict::Elsewhere(None));
        assert_eq!(error("WRONGTYPE no"), Verdict::Final);
        assert_eq!(Verdict::of(&Reply::Nil), Verdict::Final);
    }

    #[test]
    fn an_unknown_outcome_is_told_with_its_position() {
        let position = Position {
            generation: 1,
            epoch: 3,
            lsn: 1042,
        };
        let text = "UNKNOWN 1 3 1042 was ordered but its outcome is not known yet";
        assert_eq!(error(text), Verdict::Unknown(position));
        assert_eq!(error("UNKNOWN what"), Verdict::Final);
    }

    #[test]
    fn every_answer_of_outcome_is_understood() {
        let word = |word: &'static str| Reply::Bulk(Bytes::from_static(word.as_bytes()));
        let of = |items: &[Reply]| Outcome::of(Reply::Array(items.to_vec()));
        assert_eq!(
            of(&[word("done"), Reply::Int(4)]),
            Outcome::Done(Reply::Int(4))
        );
        assert_eq!(of(&[word("done")]), Outcome::ReplyGone);
        assert_eq!(of(&[word("pending")]), Outcome::Pending);
        assert_eq!(of(&[word("never")]), Outcome::Never);
        assert_eq!(of(&[]), Outcome::NotKnown);
        assert_eq!(
            Outcome::of(Reply::Error("ERR gone".into())),
            Outcome::NotKnown
        );
    }
}
