//! `tidings subscription history` and `undo`: what moved a subscription, and going back.

use clap::Args;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::fail::Result;
use crate::cli::output::{self, Column, Row, left, right};
use crate::cli::subscription::row::{One, SubscriptionRow};
use crate::protocol::api::{ChangeKind, PlaceChange, Undone};
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName, TopicName};

/// Arguments of `undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// The topic
    topic: TopicName,
    /// Name of the subscription
    name: SubscriptionName,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
}

/// A change of a subscription's place, as it is shown.
#[derive(Debug, Serialize)]
pub struct ChangeRow {
    #[serde(serialize_with = "output::as_text")]
    when: Timestamp,
    change: ChangeKind,
    from: Option<Offset>,
    to: Offset,
    generation: Generation,
    client: String,
    address: String,
}

impl From<&PlaceChange> for ChangeRow {
    fn from(change: &PlaceChange) -> Self {
        Self {
            when: change.when,
            change: change.kind,
            from: change.from,
            to: change.to,
            generation: change.generation,
            client: change.author.client.clone(),
            address: change.author.address.clone(),
        }
    }
}

impl Row for ChangeRow {
    const COLUMNS: &'static [Column] = &[
        left("WHEN"),
        left("CHANGE"),
        right("FROM"),
        right("TO"),
        left("CLIENT"),
        left("ADDRESS"),
    ];

    fn name(&self) -> String {
        self.generation.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.when.to_string(),
            self.change.to_string(),
            output::or_dash(self.from, |from| from.to_string()),
            self.to.to_string(),
            self.client.escape_debug().to_string(),
            self.address.clone(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("generation", self.name())]
    }
}

/// Runs `history`.
pub async fn history(args: One, context: &Context) -> Result {
    let found = context
        .client
        .subscription_history(&args.topic, &args.name)
        .await?;
    let rows: Vec<_> = found.changes.iter().map(ChangeRow::from).collect();
    if rows.is_empty() {
        context.output.note(format!(
            "subscription {} is older than histories, and was not moved since",
            args.name
        ));
    }
    context.output.list(&rows)
}

/// Runs `undo`.
pub async fn undo(args: Undo, context: &Context) -> Result {
    let undone = context
        .client
        .undo_subscription(&args.topic, &args.name, None, args.dry_run)
        .await?;
    tell(&args, &undone, context);
    if !args.dry_run {
        let row = SubscriptionRow::from(undone.subscription);
        return context.output.done_one(&row);
    }
    let plan = serde_json::json!({
        "topic": args.topic,
        "name": args.name,
        "from": undone.from,
        "to": undone.to,
        "undoes": ChangeRow::from(&undone.change),
        "dry_run": true,
    });
    let name = context.output.name_line(&args.name);
    context.output.value(&plan, &name)
}

fn tell(args: &Undo, undone: &Undone, context: &Context) {
    let (change, subscription) = (&undone.change, &undone.subscription);
    let moves = if args.dry_run { "would go" } else { "went" };
    let lag = subscription.end_offset.since(undone.to);
    context.output.note(format!(
        "{} {moves} back from offset {} to {}, {} before the end: undoes the {} of {}",
        args.name,
        undone.from,
        undone.to,
        output::count(lag, "message"),
        change.kind,
        change.when,
    ));
    if let Some(wanted) = change.from
        && wanted != undone.to
    {
        context.output.warn(format!(
            "it stood at offset {wanted} before; {} holds {}..{}, so it is the nearest there is",
            args.topic, subscription.start_offset, subscription.end_offset
        ));
    }
}
