//! Under virtual time.

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn name() -> RepositoryName {
    "library/nginx".parse().unwrap()
}

fn told(limit: u64, remaining: u64) -> RateHeaders {
    RateHeaders {
        limit: Some(limit),
        remaining: Some(remaining),
        window: Some(Duration::from_hours(6)),
        ..RateHeaders::default()
    }
}

fn ask(book: &Book, ask: Ask, remaining: u64) {
    book.begin(ask).unwrap().answered(&name(), 200, &told(100, remaining), None);
}

fn left(book: &Book) -> Option<u64> {
    book.read().unwrap().remaining
}

#[test]
fn the_reserve_is_a_twentieth_and_never_everything() {
    for (limit, remaining, low) in [
        (Some(100), Some(100), false),
        (Some(100), Some(6), false),
        (Some(100), Some(5), true),
        (Some(100), Some(0), true),
        (Some(200), Some(11), false),
        (Some(200), Some(10), true),
        (Some(10), Some(4), false),
        (Some(10), Some(3), true),
        (Some(2), Some(2), false),
        (Some(2), Some(1), true),
        (Some(0), Some(0), true),
        (None, Some(4), false),
        (None, Some(3), true),
        (Some(100), None, false),
        (None, None, false),
    ] {
        assert_eq!(is_low(limit, remaining), low, "{remaining:?} of {limit:?}");
    }
}

proptest! {
    #[test]
    fn more_is_never_lower_and_a_full_allowance_is_not_low(limit in 1u64..100_000, remaining in 0u64..100_000) {
        prop_assert!(!is_low(Some(limit), Some(limit)));
        prop_assert!(is_low(Some(limit), Some(remaining)) || !is_low(Some(limit), Some(remaining + 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_before_the_registry_told() {
    let book = Book::default();
    book.begin(Ask::Get).unwrap().answered(&name(), 200, &RateHeaders::default(), None);
    assert_eq!(book.read(), None, "no gauge for a registry without one");
}

#[tokio::test(start_paused = true)]
async fn the_newest_count_is_shown_and_gets_are_what_is_spent() {
    let book = Book::default();
    ask(&book, Ask::Get, 99);
    ask(&book, Ask::Head, 99);
    ask(&book, Ask::Get, 98);
    let allowance = book.read().unwrap();
    assert_eq!((allowance.limit, allowance.remaining, allowance.spent.len()), (Some(100), Some(98), 2));
    assert!(!allowance.counts_heads && !allowance.is_low);
}

#[tokio::test(start_paused = true)]
async fn answers_that_overtake_each_other_do_not_give_pulls_back() {
    let book = Book::default();
    ask(&book, Ask::Get, 50);
    let (first, second) = (book.begin(Ask::Get).unwrap(), book.begin(Ask::Get).unwrap());
    second.answered(&name(), 200, &told(100, 48), None);
    first.answered(&name(), 200, &told(100, 49), None);
    assert_eq!(left(&book), Some(48));
    ask(&book, Ask::Head, 60);
    assert_eq!(left(&book), Some(60), "asked afterwards, more is more: pulls grew back");
}

#[tokio::test(start_paused = true)]
async fn the_window_begins_when_the_count_does() {
    let book = Book::default();
    ask(&book, Ask::Head, 100);
    assert_eq!(book.read().unwrap().resets, None, "nothing is spent");
    advance(MINUTE).await;
    ask(&book, Ask::Get, 99);
    let began = Instant::now();
    advance(MINUTE).await;
    ask(&book, Ask::Get, 98);
    let window = Duration::from_hours(6);
    assert_eq!(book.read().unwrap().resets, Some(began + window));
    let reset = RateHeaders { reset: Some(MINUTE), ..told(100, 97) };
    book.begin(Ask::Get).unwrap().answered(&name(), 200, &reset, None);
    assert_eq!(book.read().unwrap().resets, Some(Instant::now() + MINUTE), "the registry knows better");
    advance(MINUTE).await;
    let over = book.read().unwrap();
    assert_eq!((over.remaining, over.resets), (None, None), "what was left then says nothing of now");
    advance(window).await;
    assert_eq!(book.read().unwrap().spent, [], "and what was spent is forgotten after a window");
}

#[tokio::test(start_paused = true)]
async fn a_429_is_the_last_question_until_its_time_is_over() {
    let book = Book::default();
    let seconds = Some(Duration::from_secs(30));
    book.begin(Ask::Get).unwrap().answered(&name(), 429, &told(100, 0), seconds);
    let refused = book.begin(Ask::Get).unwrap_err();
    assert!(matches!(refused, UpstreamError::RateLimited { retry_after } if retry_after == seconds));
    ask(&book, Ask::Head, 0);
    assert!(book.read().unwrap().rests_until.is_some(), "HEADs go on: it is pulls that are used up");
    assert_eq!(book.read().unwrap().spent, [], "what was refused was not spent");
    advance(Duration::from_secs(30)).await;
    assert!(book.begin(Ask::Get).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_429_that_is_not_about_pulls_stops_every_question() {
    for (retry_after, rest) in [
        (None, 60),
        (Some(Duration::ZERO), 1),
        (Some(Duration::from_secs(7)), 7),
        (Some(Duration::from_hours(9)), 300),
    ] {
        let book = Book::default();
        book.begin(Ask::Get).unwrap().answered(&name(), 429, &RateHeaders::default(), retry_after);
        assert!(book.begin(Ask::Head).is_err() && book.begin(Ask::Get).is_err());
        assert_eq!(book.read().unwrap().rests_until, Some(Instant::now() + Duration::from_secs(rest)));
        advance(Duration::from_secs(rest)).await;
        assert!(book.begin(Ask::Head).is_ok() && book.begin(Ask::Get).is_ok(), "{retry_after:?}");
        assert_eq!(book.read(), None, "no numbers, no gauge");
    }
}

#[tokio::test(start_paused = true)]
async fn one_question_finds_out_whether_the_rest_is_over() {
    let book = Book::default();
    book.begin(Ask::Get).unwrap().answered(&name(), 429, &told(100, 0), Some(MINUTE));
    advance(MINUTE).await;
    let first = book.begin(Ask::Get).unwrap();
    assert!(book.begin(Ask::Get).is_err(), "the others wait for its answer");
    drop(first);
    let second = book.begin(Ask::Get).unwrap();
    second.answered(&name(), 429, &told(100, 0), Some(MINUTE));
    assert!(book.begin(Ask::Get).is_err(), "it is not over");
    advance(MINUTE).await;
    ask(&book, Ask::Get, 99);
    let all: Vec<_> = (0..9).map(|_| book.begin(Ask::Get)).collect();
    assert!(all.iter().all(Result::is_ok), "now it is, for all");
}

#[tokio::test(start_paused = true)]
async fn heads_stop_near_the_limit_where_they_are_counted_and_only_there() {
    let free = Book::default();
    let counted = Book::default();
    for n in 0..5 {
        ask(&free, Ask::Head, 4);
        ask(&counted, Ask::Head, 9 - n);
    }
    assert!(free.read().unwrap().is_low && counted.read().unwrap().is_low);
    assert!(free.begin(Ask::Head).is_ok(), "free of the quota");
    assert!(counted.read().unwrap().counts_heads && counted.begin(Ask::Head).is_err());
    assert!(counted.begin(Ask::Get).is_ok(), "pulls go out to the last");
    advance(Duration::from_hours(6)).await;
    assert!(counted.begin(Ask::Head).is_ok(), "a new window");
}

#[tokio::test(start_paused = true)]
async fn a_fall_while_others_ask_is_no_proof_against_heads() {
    let book = Book::default();
    ask(&book, Ask::Head, 10);
    for n in 0..5 {
        let (get, head) = (book.begin(Ask::Get).unwrap(), book.begin(Ask::Head).unwrap());
        get.answered(&name(), 200, &told(100, 9 - n), None);
        head.answered(&name(), 200, &told(100, 9 - n), None);
    }
    assert!(!book.read().unwrap().counts_heads, "the GETs were counted");
    for n in 0..5 {
        drop(book.begin(Ask::Get).unwrap());
        ask(&book, Ask::Head, 4 - n.min(4));
    }
    assert!(!book.read().unwrap().counts_heads, "a GET that got no answer may have been");
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let book = Book::default();
    for _ in 0..SPENT_MAX + 10 {
        ask(&book, Ask::Get, 50);
    }
    assert_eq!(book.read().unwrap().spent.len(), SPENT_MAX);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_spent_is_shown_once_the_registry_tells_again() {
    let book = Book::default();
    book.recall((0..SPENT_MAX as u64 + 5).rev().map(|n| (Duration::from_secs(n), name())));
    assert_eq!(book.read(), None);
    ask(&book, Ask::Head, 70);
    assert_eq!(book.read().unwrap().spent.len(), SPENT_MAX, "bounded");
    advance(Duration::from_hours(6)).await;
    assert!(book.read().unwrap().spent.len() < 2, "and no older than a window");
}
