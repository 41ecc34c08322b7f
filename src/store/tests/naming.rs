//! Listings over more names than are looked at at once, and names that change while they are used.

use super::*;
use crate::protocol::api::ConsumerGroupChanges;
use crate::types::{SubscriptionName, TopicPattern};

const TOPICS: usize = 2 * limits::NAMES_LOOKED_AT_ONCE + 7;

fn text(number: usize) -> String {
    format!("t{number:05}")
}

/// Many topics; three of them have a subscription and a consumer group each.
async fn many(dir: &Path) -> (Store, [usize; 3]) {
    let (store, _) = open(dir);
    let mut made = Vec::new();
    for number in 0..TOPICS {
        made.push(tokio::spawn({
            let store = store.clone();
            async move { create(&store, &text(number), Durability::Fsync).await }
        }));
    }
    for made in made {
        made.await.expect("made");
    }
    let chosen = [0, limits::NAMES_LOOKED_AT_ONCE, TOPICS - 1];
    for number in chosen {
        for one in ["a", "b"] {
            let one: SubscriptionName = one.parse().expect("good");
            let topic = name(&text(number));
            let made = store.create_subscription(topic, one, Position::Beginning, false);
            made.await.expect("made");
        }
        let group = (name(&text(number)), "g".parse().expect("good"));
        let changes = ConsumerGroupChanges::default();
        let made = store.create_consumer_group(group, Position::Beginning, changes);
        made.await.expect("made");
    }
    (store, chosen)
}

/// All of them are found by the old name before the first one is done.
#[tokio::test]
async fn of_those_who_rename_or_delete_at_once_one_finds_the_name() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    for round in 0..20 {
        let [old, new, other] = ["old", "new", "other"].map(|text| name(&format!("{text}{round}")));
        let id = create(&store, &old.to_string(), Durability::Fsync).await;
        let (first, second, deleted) = tokio::join!(
            store.rename_topic(old.clone(), new.clone()),
            store.rename_topic(old.clone(), other.clone()),
            store.delete_topic(old.clone(), None),
        );
        assert_eq!(first.expect("the first one asked").id, id);
        let not_found = ApiError::TopicNotFound { name: old.clone() };
        assert_eq!(second.expect_err("it has another name"), not_found);
        assert_eq!(deleted.expect_err("it has another name"), not_found);
        assert_eq!(store.describe_topic(new).await.expect("it is there").id, id);
        for gone in [old, other] {
            let found = store.describe_topic(gone.clone()).await;
            let not_found = ApiError::TopicNotFound { name: gone };
            assert_eq!(found.expect_err("nobody has that name"), not_found);
        }
    }
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, chosen) = many(dir.path()).await;
    for limit in [1, 4, 100] {
        let (mut subscriptions, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .list_subscriptions(None, after, limit)
                .await
                .expect("listed");
            assert!(page.subscriptions.len() <= limit as usize);
            let told = page.subscriptions.iter();
            subscriptions.extend(told.map(|one| (one.topic.clone(), one.name.to_string())));
            after = page
                .subscriptions
                .last()
                .map(|one| (one.topic.clone(), one.name.clone()));
            if !page.more {
                break;
            }
        }
        let wanted = chosen
            .iter()
            .flat_map(|number| ["a", "b"].map(|one| (name(&text(*number)), one.to_owned())));
        assert_eq!(subscriptions, wanted.collect::<Vec<_>>(), "{limit}");

        let (mut groups, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = store
                .consumer_groups(None, after, limit)
                .await
                .expect("listed");
            after = page.last().map(|one| (one.topic.clone(), one.name.clone()));
            groups.extend(page.into_iter().map(|one| one.topic));
            if !more {
                break;
            }
        }
        assert_eq!(groups, chosen.map(|number| name(&text(number))), "{limit}");
    }
    let only = store
        .list_subscriptions(Some(name(&text(TOPICS - 1))), None, 100)
        .await;
    let only = only.expect("listed");
    assert_eq!((only.subscriptions.len(), only.more), (2, false));
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_pattern_that_hardly_matches_is_answered_in_full() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = many(dir.path()).await;
    let last = text(TOPICS - 1);
    for (pattern, limit, wanted, more) in [
        (last.as_str(), 10, vec![last.clone()], false),
        ("none.*", 10, vec![], false),
        (">", 2, vec![text(0), text(1)], true),
    ] {
        let parsed: TopicPattern = pattern.parse().expect("good");
        let page = store
            .describe_topics(parsed, None, limit)
            .await
            .expect("told");
        let names: Vec<String> = page
            .topics
            .iter()
            .map(|topic| topic.name.to_string())
            .collect();
        assert_eq!((names, page.more), (wanted, more), "{pattern}");
    }
    let all: TopicPattern = ">".parse().expect("good");
    let (mut count, mut after) = (0, None);
    loop {
        let page = store
            .describe_topics(all.clone(), after, 500)
            .await
            .expect("told");
        count += page.topics.len();
        after = page.topics.last().map(|topic| topic.name.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(count, TOPICS);
    store.stop().expect("a clean stop");
}
