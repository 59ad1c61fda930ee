//! Where bringing in devices for revoked ones was refused: each attempt takes KeyPackages that serve once.

use std::collections::HashSet;
use std::sync::Mutex;

use gureum_proto::ConversationId;

/// Conversations in which the server did not accept on this connection that a removal brings devices in. So they are tried
/// once each; of those that an account is in there are not more than the server allows.
#[derive(Debug, Default)]
pub(crate) struct InVain(Mutex<HashSet<ConversationId>>);

impl InVain {
    pub(super) fn note(&self, conversation: ConversationId) {
        self.0.lock().expect("no code panics while it holds the conversations").insert(conversation);
    }

    /// Whether nobody is to be brought in there on this connection.
    pub(super) fn is(&self, conversation: ConversationId) -> bool {
        self.0.lock().expect("no code panics while it holds the conversations").contains(&conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_in_one_conversation_is_tried_in_others() {
        let [first, second] = [1, 2].map(|number| ConversationId::from_bytes([number; 16]));
        let in_vain = InVain::default();
        assert!(!in_vain.is(first));
        in_vain.note(first);
        assert!(in_vain.is(first) && !in_vain.is(second));
    }
}
