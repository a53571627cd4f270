//! Search, order, rates and bounds of the list.

use super::*;

fn tunnel(id: u64, client: &str, bytes_in: u64) -> TunnelInfo {
    TunnelInfo {
        id: format!("{id:x}"),
        listener: "127.0.0.1:80".into(),
        site: "web".into(),
        pool: if id.is_multiple_of(2) { "Chat" } else { "games" }.into(),
        backend: "10.0.0.4:80".into(),
        client: client.into(),
        bytes_in,
        bytes_out: 2 * bytes_in,
        idle_ms: 1000 - id,
        age_ms: 10_000,
        ..TunnelInfo::default()
    }
}

fn listed(tunnels: Vec<TunnelInfo>, before: Option<&Listed>, after: Duration) -> Listed {
    let begun = before.map_or_else(Instant::now, |it| it.ended) + after;
    Listed::new(told(tunnels), before, [begun, begun], 0)
}

fn told(tunnels: Vec<TunnelInfo>) -> TunnelsResponse {
    TunnelsResponse { tunnels, ..TunnelsResponse::default() }
}

fn ask(listed: &Listed, query: &str) -> (Value, Vec<String>) {
    let answer = listed.answer(&Question::read(Query(query)));
    let rows = answer["tunnels"].as_array().cloned().unwrap_or_default();
    let ids = rows.iter().map(|row| row["id"].as_str().unwrap_or_default().to_owned());
    (answer.clone(), ids.collect())
}

#[test]
fn every_word_must_be_somewhere_in_a_row() {
    let tunnels = (1..5).map(|id| tunnel(id, &format!("192.0.2.{id}:5000"), id)).collect();
    let all = listed(tunnels, None, Duration::ZERO);
    for (search, expected) in [
        ("", &["4", "3", "2", "1"] as &[&str]),
        ("192.0.2.3", &["3"]),
        ("chat", &["4", "2"]),
        ("CHAT%20.4:5", &["4"]),
        ("+games++web+", &["3", "1"]),
        ("nobody", &[]),
        ("%3Cb%3E", &[]),
        ("%C3%A4", &[]),
    ] {
        let (answer, ids) = ask(&all, &format!("search={search}"));
        assert_eq!(ids, expected, "{search}");
        assert_eq!((&answer["total"], &answer["matching"]), (&json!(4), &json!(expected.len())));
    }
}

#[test]
fn rows_are_ordered_and_cut_and_the_rest_is_counted() {
    let tunnels = [5, 1, 9, 1].into_iter().zip(1..).map(|(size, id)| tunnel(id, "c", size));
    let all = listed(tunnels.collect(), None, Duration::ZERO);
    for (order, expected) in [
        ("newest", ["4", "3", "2", "1"]),
        ("oldest", ["1", "2", "3", "4"]),
        ("largest", ["3", "1", "2", "4"]),
        ("busiest", ["3", "1", "2", "4"]),
        ("idlest", ["1", "2", "3", "4"]),
        ("unheard-of", ["4", "3", "2", "1"]),
    ] {
        assert_eq!(ask(&all, &format!("order={order}")).1, expected, "{order}");
    }
    let (answer, ids) = ask(&all, "order=oldest&rows=2");
    assert_eq!((ids.len(), &answer["matching"]), (2, &json!(4)));
    let many = (0..MOST_ROWS * 2).map(|id| tunnel(id, "c", 0)).collect();
    let many = listed(many, None, Duration::ZERO);
    assert_eq!(ask(&many, "rows=99999").1.len() as u64, MOST_ROWS);
    assert_eq!(ask(&many, "rows=-1").1.len() as u64, USUAL_ROWS);
}

#[test]
fn rates_are_of_the_time_between_two_listings() {
    let rates = |listed: &Listed| {
        let rows = ask(listed, "order=oldest").0;
        let rows = rows["tunnels"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| json!([row["rate_in"], row["rate_out"]])).collect::<Vec<_>>()
    };
    let first = listed(vec![tunnel(1, "c", 1000)], None, Duration::ZERO);
    assert_eq!(rates(&first), [json!([100.0, 200.0])]);
    let now = vec![tunnel(1, "c", 1500), tunnel(2, "c", 10)];
    let second = listed(now, Some(&first), Duration::from_secs(2));
    assert_eq!(rates(&second), [json!([250.0, 500.0]), json!([1.0, 2.0])]);
    let mut young = tunnel(3, "c", 10);
    young.age_ms = 0;
    let third = listed(vec![tunnel(1, "c", 0), young], Some(&second), Duration::from_secs(1));
    assert_eq!(rates(&third), [json!([0.0, 0.0]), json!([null, null])]);
}

#[test]
fn a_row_says_what_the_command_says_and_its_rate() {
    let all = listed(vec![tunnel(7, "c", 1)], None, Duration::ZERO);
    let mut row = ask(&all, "").0["tunnels"][0].clone();
    let members = row.as_object_mut().map(|it| (it.remove("rate_in"), it.remove("rate_out")));
    assert_eq!(members, Some((Some(json!(0.1)), Some(json!(0.2)))));
    assert_eq!(row, tunnel_json(&tunnel(7, "c", 1)));
}

#[test]
fn a_listing_that_took_long_is_good_for_longer() {
    let begun = Instant::now();
    let quick = Listed::new(told(Vec::new()), None, [begun, begun], 0);
    assert!(quick.is_recent(begun) && !quick.is_recent(begun + SHORTEST_PAUSE));
    assert!(quick.is_forgotten(begun + FORGOTTEN + SHORTEST_PAUSE));
    let ended = begun + Duration::from_secs(1);
    let slow = Listed::new(told(Vec::new()), None, [begun, ended], 0);
    assert!(slow.is_recent(ended + Duration::from_secs(19)));
    assert!(!slow.is_recent(ended + Duration::from_secs(20)));
}

#[test]
fn a_worker_that_does_not_answer_is_told_of_and_soon_asked_again() {
    let silent = |tunnels| SilentWorker { listener: "127.0.0.1:80".into(), pid: 7, tunnels };
    let begun = Instant::now();
    let ended = begun + Duration::from_secs(5);
    let told =
        TunnelsResponse { silent: vec![silent(1), silent(12)], ..told(vec![tunnel(1, "c", 1)]) };
    let all = Listed::new(told, None, [begun, ended], 0);
    let missing = ["its 1 tunnel is", "its 12 tunnels are"].map(|missing| {
        format!(
            "worker 7 of 127.0.0.1:80 has not answered, it is stopped or very busy: {missing} not among these"
        )
    });
    assert_eq!(ask(&all, "search=nobody").0["missing"], json!(missing));
    assert!(!all.is_recent(ended + Duration::from_secs(5)));
}

#[test]
fn what_was_asked_of_a_listing_is_not_searched_for_again() {
    fn question(query: &str) -> Question {
        Question::read(Query(query))
    }
    let first = Arc::new(listed(vec![tunnel(1, "c", 1)], None, Duration::ZERO));
    let mut answers = Answers::default();
    let told = answers.give(question("search=chat&rows=5"), &first);
    let again = answers.give(question("rows=5&search=CHAT"), &first);
    assert_eq!(told.as_ptr(), again.as_ptr());
    let other = answers.give(question("search=games&rows=5"), &first);
    assert_ne!(told, other);
    // Of another listing nothing is known yet, and what was known is given back.
    let second = Arc::new(listed(Vec::new(), Some(&first), Duration::from_secs(1)));
    assert_ne!(answers.give(question("search=games&rows=5"), &second), other);
    assert_eq!(answers.told.len(), 1);
    for row in 0..2 * MOST_ANSWERS {
        answers.give(question(&format!("rows={row}")), &second);
    }
    assert_eq!(answers.told.len(), MOST_ANSWERS);
}
