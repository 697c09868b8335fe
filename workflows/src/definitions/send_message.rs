//! A letter, sent for as long as it takes.

use crate::contracts::message::SendMail;
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Sends a letter. Started in the transaction of what it tells of: neither is there without the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendMessage {
    /// The letter.
    pub mail: SendMail,
}

impl Workflow for SendMessage {
    const NAME: &'static str = "send_message";
    /// The Message-ID.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        cx.activity("send", self.mail).await
    }
}
