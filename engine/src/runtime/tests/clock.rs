//! What a job does because time has passed, by a clock that the test moves.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// More than the time between two epochs.
const STEP: Duration = Duration::from_secs(1);

impl World {
    /// Moves the clock by steps of a second until `done`; gives how far.
    async fn advance_until(&self, clock: &Clock, what: &str, done: impl Fn() -> bool) -> Duration {
        let start = clock.now();
        let patience = Instant::now();
        while !done() {
            assert!(patience.elapsed() < Duration::from_secs(20), "never came: {what}");
            clock.advance(STEP);
            // The job does what the hour asks of it.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        clock.since(start)
    }

    fn commits(&self) -> usize {
        self.taps.told.lock().len()
    }
}

/// Its last epoch has its time, too.
async fn stop(job: JobHandle, clock: &Clock) {
    let stopping = job.stop();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            stopped = &mut stopping => return stopped.expect("stops"),
            () = tokio::time::sleep(Duration::from_millis(3)) => clock.advance(STEP),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_comes_when_its_time_has_come() {
    let (world, clock) = (World::new(1), Clock::by_hand());
    let job = world.start_by(clock.clone(), 1, HOUR, HOUR).await;
    world.taps.pour(0, 1);
    world.advance_until(&clock, "the row", || world.basin.times() == [1]).await;
    let before = world.commits();
    // However long it runs by the clock on the wall.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.commits(), before);
    clock.advance(HOUR / 2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.commits(), before, "not after half of it");
    clock.advance(HOUR / 2);
    world.advance_until(&clock, "the commit", || world.commits() > before && world.taps.has_heard(1)).await;
    stop(job, &clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_comes_before_its_time_while_somebody_waits_for_it() {
    let (world, clock) = (World::new(1), Clock::by_hand());
    world.basin.1.store(true, Ordering::Relaxed);
    let job = world.start_by(clock.clone(), 1, HOUR, HOUR).await;
    for time in 1..5 {
        let (before, from) = (world.commits(), clock.now());
        world.taps.pour(0, time);
        world
            .advance_until(&clock, "the commit", || world.commits() > before && world.taps.has_heard(time as u64))
            .await;
        assert!(clock.since(from) < HOUR / 10, "after {:?}", clock.since(from));
    }
    assert!(world.taps.awaited.load(Ordering::Relaxed), "so are the rows that it is made of");
    world.basin.1.store(false, Ordering::Relaxed);
    world.taps.pour(0, 9);
    world.advance_until(&clock, "the row", || world.basin.times().contains(&9)).await;
    world.advance_until(&clock, "the word", || !world.taps.awaited.load(Ordering::Relaxed)).await;
    let before = world.commits();
    clock.advance(HOUR / 4);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(world.commits() <= before + 1, "one may have been under way");
    world.basin.1.store(true, Ordering::Relaxed);
    world.taps.pour(0, 10);
    world.advance_until(&clock, "the commit", || world.taps.has_heard(6)).await;
    stop(job, &clock).await;
    assert!(!world.taps.awaited.load(Ordering::Relaxed), "whose job has ended waits for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_is_idle_after_its_timeout_and_not_before() {
    let (world, clock) = (World::new(2), Clock::by_hand());
    let job = world.start_by(clock.clone(), 1, HOUR, STEP).await;
    let begun = clock.now();
    world.taps.pour(0, 10);
    for time in 20.. {
        world.taps.pour(1, time);
        // Before the clock moves on, what was poured is there.
        world.advance_until(&clock, "the row", || world.basin.times().contains(&time)).await;
        if job.status().watermark.0 > 10 {
            break;
        }
        clock.advance(HOUR / 8);
        assert!(clock.since(begun) < HOUR * 2, "held at {} {}", job.status().watermark, job.status().holder);
    }
    assert!(clock.since(begun) >= HOUR, "after {:?}", clock.since(begun));
    stop(job, &clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_makes_an_epoch_at_once_where_idle_splits_are_looked_for_now_and_then() {
    let (world, clock) = (World::new(1), Clock::by_hand());
    let job = world.start_by(clock.clone(), 1, HOUR, HOUR).await;
    for time in 1..6 {
        world.taps.pour(0, time);
        let (start, patience) = (clock.now(), Instant::now());
        while !world.basin.times().contains(&time) {
            assert!(patience.elapsed() < Duration::from_secs(20), "never came");
            // The time between two epochs, and far less than that between two looks.
            clock.advance(Duration::from_millis(5));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(clock.since(start) <= Duration::from_millis(250), "after {:?}", clock.since(start));
    }
    stop(job, &clock).await;
}
