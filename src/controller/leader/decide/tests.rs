//! The election as tables, and played by two with clocks that are nowhere near each other.

use super::*;

const TIMING: Timing = Timing {
    duration: Duration::from_millis(2000),
    deadline: Duration::from_millis(1500),
    retry: Duration::from_millis(500),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// A lease of `holder` that was renewed at `renewed` by whatever clock.
fn held(holder: &str, renewed: i64) -> Option<Record> {
    Some(Record {
        holder: (!holder.is_empty()).then(|| holder.to_owned()),
        duration: TIMING.duration,
        acquired: Some(wall(0)),
        renewed: Some(wall(renewed)),
        transitions: 3,
    })
}

#[test]
fn a_standby_looks_waits_and_takes_what_is_free() {
    // What was seen at which millisecond; when we ask; what is to be done. Waits are given as milliseconds.
    type Look = (u64, Option<Record>);
    type Row = (&'static str, Vec<Look>, u64, Result<Step, u64>);
    let wait = |millis: u64| Err(millis);
    let table: [Row; 13] = [
        ("nothing known", vec![], 0, Ok(Step::Look)),
        ("no lease", vec![(0, None)], 0, Ok(Step::Acquire)),
        ("given up", vec![(0, held("", 9))], 0, Ok(Step::Acquire)),
        (
            "ours, run out",
            vec![(0, held("me", 9))],
            0,
            Ok(Step::Acquire),
        ),
        ("just seen", vec![(0, held("it", 9))], 0, wait(250)),
        ("not looked yet", vec![(0, held("it", 9))], 100, wait(250)),
        (
            "time to look",
            vec![(0, held("it", 9))],
            250,
            Ok(Step::Look),
        ),
        (
            "the same for almost its duration",
            vec![(0, held("it", 9)), (1900, held("it", 9))],
            1900,
            wait(2000),
        ),
        (
            "the same for its duration",
            vec![(0, held("it", 9)), (1900, held("it", 9))],
            2000,
            Ok(Step::Acquire),
        ),
        (
            "renewed meanwhile",
            vec![(0, held("it", 9)), (1900, held("it", 10))],
            2200,
            Ok(Step::Look),
        ),
        (
            "a time that went back is a change too",
            vec![(0, held("it", 9)), (1900, held("it", 8))],
            2200,
            Ok(Step::Look),
        ),
        (
            "somebody else took it",
            vec![(0, held("it", 9)), (1900, held("they", 9))],
            2200,
            Ok(Step::Look),
        ),
        (
            "nothing could be read since",
            vec![(0, held("it", 9))],
            60_000,
            Ok(Step::Acquire),
        ),
    ];
    for (name, looks, at, expected) in table {
        let start = Instant::now();
        let mut standby = Candidate::new("me".into(), TIMING, start);
        for (millis, record) in looks {
            standby.looked(record, start + ms(millis));
        }
        let expected = expected.unwrap_or_else(|millis| Step::Wait(start + ms(millis)));
        assert_eq!(standby.step(start + ms(at)), expected, "{name}");
    }
}

#[test]
fn a_lease_counts_by_its_own_duration() {
    let start = Instant::now();
    let mut standby = Candidate::new("me".into(), TIMING, start);
    let mut long = held("it", 9);
    if let Some(record) = &mut long {
        record.duration = ms(15_000);
    }
    standby.looked(long.clone(), start);
    standby.looked(long, start + ms(14_900));
    assert_eq!(
        standby.step(start + ms(14_999)),
        Step::Wait(start + ms(15_000))
    );
    assert_eq!(standby.step(start + ms(15_000)), Step::Acquire);
}

/// Leads since a write that was sent at 0 and answered after 100 ms.
fn leader(start: Instant) -> Candidate {
    let mut leader = Candidate::new("me".into(), TIMING, start);
    leader.looked(None, start);
    leader.wrote(held("me", 0).expect("a record"), start, start + ms(100));
    leader
}

#[test]
fn a_leader_renews_and_stops_before_anybody_may_follow() {
    type Event = fn(&mut Candidate, Instant);
    let none: Event = |_, _| {};
    let table: [(&str, Event, u64, Result<Step, u64>); 10] = [
        ("answered", none, 100, Err(500)),
        ("time to renew", none, 500, Ok(Step::Renew)),
        ("no renewal until its deadline", none, 1500, Ok(Step::Lost)),
        ("frozen", none, 60_000, Ok(Step::Lost)),
        (
            "renewed: from when it was sent",
            |it, start| {
                let record = held("me", 1).expect("a record");
                it.wrote(record, start + ms(500), start + ms(900));
            },
            1999,
            Ok(Step::Renew),
        ),
        (
            "renewed, and that is over too",
            |it, start| {
                let record = held("me", 1).expect("a record");
                it.wrote(record, start + ms(500), start + ms(900));
            },
            2000,
            Ok(Step::Lost),
        ),
        (
            "a try that failed moves nothing but the next one",
            |it, start| it.failed(start + ms(500), start + ms(950)),
            960,
            Err(1000),
        ),
        (
            "the next try does not wait past the end",
            |it, start| it.failed(start + ms(1200), start + ms(1450)),
            1460,
            Err(1500),
        ),
        (
            "a conflict is looked at at once",
            |it, start| it.met_a_conflict(start + ms(510)),
            510,
            Ok(Step::Look),
        ),
        (
            "it was our own renewal, whose answer was lost",
            |it, start| {
                it.met_a_conflict(start + ms(510));
                it.looked(held("me", 1), start + ms(520));
            },
            520,
            Ok(Step::Renew),
        ),
    ];
    for (name, event, at, expected) in table {
        let start = Instant::now();
        let mut leader = leader(start);
        event(&mut leader, start);
        let expected = expected.unwrap_or_else(|millis| Step::Wait(start + ms(millis)));
        assert_eq!(leader.step(start + ms(at)), expected, "{name}");
    }
    for taken in [held("it", 1), held("", 1), None] {
        let start = Instant::now();
        let mut leader = leader(start);
        leader.met_a_conflict(start + ms(510));
        leader.looked(taken, start + ms(520));
        assert_eq!(
            leader.step(start + ms(520)),
            Step::Lost,
            "somebody else's, or gone"
        );
        leader.stopped(start + ms(520));
        assert_ne!(leader.step(start + ms(520)), Step::Lost, "once");
    }
}

#[test]
fn a_claim_counts_the_changes_of_the_holder() {
    let now = wall(50);
    let start = Instant::now();
    for (name, record, acquired, transitions) in [
        ("a new lease", None, 50, 0),
        ("another's", held("it", 9), 50, 4),
        ("given up", held("", 9), 50, 4),
        ("our own", held("me", 9), 0, 3),
    ] {
        let mut candidate = Candidate::new("me".into(), TIMING, start);
        candidate.looked(record, start);
        let claim = candidate.claim(now);
        assert_eq!(claim.holder.as_deref(), Some("me"), "{name}");
        assert_eq!(claim.acquired, Some(wall(acquired)), "{name}");
        assert_eq!(
            (claim.renewed, claim.transitions),
            (Some(now), transitions),
            "{name}"
        );
    }
}

/// Two play against one store that answers, does not answer, or does not tell what it has done, as chance has it, and are
/// frozen now and then: at no time do both lead, and the lead goes from one to the other.
#[test]
fn two_never_lead_at_once() {
    for seed in 1..300_u64 {
        let mut game = Game::new(seed);
        for _ in 0..4000 {
            game.play();
        }
        assert!(game.terms > 1, "seed {seed}: {} terms", game.terms);
    }
}

struct Game {
    random: u64,
    now: Instant,
    /// The lease, and its version.
    stored: (Option<Record>, u64),
    players: [Player; 2],
    terms: u32,
}

struct Player {
    candidate: Candidate,
    version: u64,
    /// Its clock; only the times it writes down come from it.
    clock: i64,
    frozen_until: Instant,
    leads: bool,
}

impl Game {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let player = |name: &str, clock| Player {
            candidate: Candidate::new(name.into(), TIMING, now),
            version: 0,
            clock,
            frozen_until: now,
            leads: false,
        };
        Game {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            now,
            stored: (None, 0),
            players: [player("a", 1_000_000), player("b", -1_000_000)],
            terms: 0,
        }
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(of)
    }

    /// Ten milliseconds in which each does what its rule says; calls take no time or their whole time-out.
    fn play(&mut self) {
        self.now += ms(10);
        for turn in 0..2 {
            if self.chance(500) {
                self.players[turn].frozen_until = self.now + ms(4000);
            }
            if self.players[turn].frozen_until <= self.now {
                self.step(turn);
            }
        }
        let leads = |player: &Player| {
            let until = player.candidate.leads_until();
            until.is_some_and(|until| self.now < until)
        };
        assert!(
            !(leads(&self.players[0]) && leads(&self.players[1])),
            "both lead"
        );
        for turn in 0..2 {
            let leads = leads(&self.players[turn]);
            self.terms +=
                u32::from(leads && !std::mem::replace(&mut self.players[turn].leads, leads));
            self.players[turn].leads = leads;
        }
    }

    fn step(&mut self, turn: usize) {
        let (sent, heard) = (self.now, !self.chance(4));
        let arrives = heard || self.chance(2);
        let late = sent + TIMING.call();
        let (record, version) = self.stored.clone();
        let player = &mut self.players[turn];
        match player.candidate.step(sent) {
            Step::Wait(_) => {}
            Step::Lost => player.candidate.stopped(sent),
            Step::Look if heard => {
                player.candidate.looked(record, sent);
                player.version = version;
            }
            Step::Look => {
                player.candidate.failed(sent, late);
                player.frozen_until = late;
            }
            Step::Acquire | Step::Renew => {
                player.clock += 1;
                let claim = player.candidate.claim(wall(player.clock));
                if arrives && player.version != version {
                    player.candidate.met_a_conflict(sent);
                    return;
                }
                if arrives {
                    self.stored = (Some(claim.clone()), version + 1);
                }
                if heard {
                    player.version = version + 1;
                    player.candidate.wrote(claim, sent, sent);
                } else {
                    player.candidate.failed(sent, late);
                    player.frozen_until = late;
                }
            }
        }
    }
}
