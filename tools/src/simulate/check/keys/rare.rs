//! What happens seldom to keys and tokens.

use crate::simulate::check::rare::rare;

rare! {
    Flushed "FLUSHALL took keys";
    FlushedInSnapshot "FLUSHALL while a snapshot was taken";
    Full "ONCEFULL";
    RoomMade "room for a token where others had ended";
    OnceAgain "ONCE answered again";
    Reused "ONCEREUSED";
    WatchChanged "EXEC nil for a key that was changed";
    WatchEnded "EXEC nil for a key that had ended";
    WatchEndedUnswept "EXEC nil for one of many keys that had just ended";
    WatchHeld "EXEC done over keys that end";
    StaleRead "backup's answer about a key that ends";
    NodeCompared "node's keys compared at the end";
}
