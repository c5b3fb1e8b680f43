//! What happened, as the server has it on record.

use drivefs_core::id::NodeId;
use drivefs_core::wire::EventsReply;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::Span;

use super::History;
use super::HistoryError;

impl History {
    /// A page of commits with what each did; of a node, what happened to it or below it.
    pub async fn events(
        &self,
        of: Option<NodeId>,
        span: Span,
        limit: u32,
    ) -> Result<EventsReply, HistoryError> {
        let request = EventsRequest { ns: self.ns, of, span, limit, notable: false };
        Ok(self.remote.events(&request).await?)
    }
}
