//! A device that waits becomes one of its account's, with a yes on another one: both sides at the same time.

use gureum_client::{AddedDevice, Client, ClientError, LinkSession, LinkStep};

/// Has `yes` approve of a device that waits, which goes on until it is linked; `hands_over`: it is handed what was said
/// before, whether or not it asks for that. What each of the two is told, who may not hear of what the other one has done.
pub async fn link(
    waiting: &mut LinkSession,
    yes: &Client,
    hands_over: bool,
) -> (Result<AddedDevice, ClientError>, Result<Client, ClientError>) {
    let code = waiting.code().clone();
    let approve = async {
        let mut approval = Box::pin(yes.approve(&code)).await?;
        if hands_over {
            approval.hand_over_history();
        }
        Box::pin(approval.finish()).await
    };
    let wait = async {
        loop {
            if let LinkStep::Linked { client, .. } = Box::pin(waiting.next()).await? {
                return Ok::<_, ClientError>(client);
            }
        }
    };
    tokio::join!(approve, wait)
}
