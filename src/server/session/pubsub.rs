//! SUBSCRIBE and its kin: what is heard is the Sentinel events, made from changes of the view.

use super::Session;
use crate::node::view::View;
use crate::server::command::Id;
use crate::server::resp::{self, Protocol};
use crate::server::{sentinel, text};
use crate::state::{Reply, glob_matches};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Channels and patterns of one connection; more are refused.
const SUBSCRIPTIONS_MAX: usize = 1024;

/// What a connection listens to; it exists while there is anything.
#[derive(Debug)]
pub struct Subscription {
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    views: watch::Receiver<Arc<View>>,
    seen: Arc<View>,
    /// The primary's address that the client was told last.
    told: Option<String>,
}

impl Subscription {
    fn new(mut views: watch::Receiver<Arc<View>>) -> Subscription {
        let seen = views.borrow_and_update().clone();
        let registered = seen.config.as_deref().map(|config| config.primary);
        let told = seen
            .primary
            .or(registered)
            .and_then(|id| seen.client_address(id))
            .map(str::to_string);
        Subscription {
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            views,
            seen,
            told,
        }
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.patterns.len())
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}

/// Returns when a subscribed connection may have something to hear; never for others.
pub async fn changed(subscription: &mut Option<Subscription>) {
    match subscription {
        Some(subscription) => {
            if subscription.views.changed().await.is_err() {
                // The engine has stopped; the session learns it from its answers.
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

/// What RESP2 lets a connection do that listens.
pub fn is_allowed(id: Id) -> bool {
    matches!(
        id,
        Id::Subscribe
            | Id::Unsubscribe
            | Id::PSubscribe
            | Id::PUnsubscribe
            | Id::Ping
            | Id::Quit
            | Id::Reset
    )
}

pub fn refusal(name: &str) -> Reply {
    Reply::error(format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
         are allowed in this context"
    ))
}

impl Session {
    /// RESP2 cannot tell a reply from a message, so little else is allowed then.
    pub(super) fn is_listening_only(&self) -> bool {
        self.subscription.is_some() && self.protocol() == Protocol::Resp2
    }

    /// (P)SUBSCRIBE; everything before it is answered, so its confirmations go straight out.
    pub(super) fn subscribe(&mut self, id: Id, args: &[Bytes]) {
        let mut subscription = match self.subscription.take() {
            Some(subscription) => subscription,
            None => Subscription::new(self.front.handle.watch_view()),
        };
        for name in args.iter().skip(1) {
            if subscription.len() >= SUBSCRIPTIONS_MAX {
                self.reply(Reply::error("ERR too many subscriptions"));
                break;
            }
            let name = Bytes::copy_from_slice(name);
            let (word, set) = match id {
                Id::PSubscribe => ("psubscribe", &mut subscription.patterns),
                _ => ("subscribe", &mut subscription.channels),
            };
            set.insert(name.clone());
            self.confirm(word, Reply::Bulk(name), subscription.len());
        }
        self.subscription = (subscription.len() > 0).then_some(subscription);
    }

    /// (P)UNSUBSCRIBE, of all without names.
    pub(super) fn unsubscribe(&mut self, id: Id, args: &[Bytes]) {
        let word = if id == Id::PUnsubscribe {
            "punsubscribe"
        } else {
            "unsubscribe"
        };
        let Some(mut subscription) = self.subscription.take() else {
            match args.get(1..) {
                Some([_, ..]) => {
                    for name in args.iter().skip(1) {
                        self.confirm(word, Reply::Bulk(name.clone()), 0);
                    }
                }
                _ => self.confirm(word, Reply::Nil, 0),
            }
            return;
        };
        let set = |subscription: &mut Subscription| match id {
            Id::PUnsubscribe => std::mem::take(&mut subscription.patterns),
            _ => std::mem::take(&mut subscription.channels),
        };
        let mut kept = set(&mut subscription);
        let names: Vec<Bytes> = match args.get(1..) {
            Some(names @ [_, ..]) => names.to_vec(),
            _ => kept.iter().cloned().collect(),
        };
        if names.is_empty() {
            self.confirm(word, Reply::Nil, subscription.len());
        }
        for name in names {
            kept.remove(&name);
            self.confirm(word, Reply::Bulk(name), subscription.len() + kept.len());
        }
        match id {
            Id::PUnsubscribe => subscription.patterns = kept,
            _ => subscription.channels = kept,
        }
        self.subscription = (subscription.len() > 0).then_some(subscription);
    }

    /// The view has changed: tells what the client listens to.
    pub(super) fn on_view(&mut self) {
        let protocol = self.protocol();
        let Some(subscription) = &mut self.subscription else {
            return;
        };
        let after = subscription.views.borrow_and_update().clone();
        let before = std::mem::replace(&mut subscription.seen, after.clone());
        for (channel, message) in sentinel::events(&mut subscription.told, &before, &after) {
            let out = &mut self.replies.out;
            let (channel, message) = (Reply::Bulk(channel), Reply::Bulk(message));
            let Reply::Bulk(name) = &channel else {
                continue;
            };
            if subscription.channels.contains(name) {
                let items = [text("message"), channel.clone(), message.clone()];
                resp::write_push(&items, protocol, out);
            }
            for pattern in &subscription.patterns {
                if glob_matches(pattern, name) {
                    let pattern = Reply::Bulk(pattern.clone());
                    let items = [text("pmessage"), pattern, channel.clone(), message.clone()];
                    resp::write_push(&items, protocol, out);
                }
            }
        }
    }

    fn confirm(&mut self, word: &'static str, name: Reply, count: usize) {
        let count = Reply::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let items = [text(word), name, count];
        resp::write_push(&items, self.protocol(), &mut self.replies.out);
    }
}
