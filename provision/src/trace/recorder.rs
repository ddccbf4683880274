//! Recording, and how the code on the way finds the recorder.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use tokio::task::{AbortHandle, JoinHandle};

use super::{ComponentCpu, Event, Kind, Recording};

tokio::task_local! {
    /// The trace of the operation that runs.
    static CURRENT: Trace;
}

/// A trace that is being recorded. Clones share it.
#[derive(Clone, Debug)]
pub struct Trace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    began: Instant,
    wall: SystemTime,
    watches: bool,
    events: Mutex<Vec<Event>>,
    components: Mutex<Vec<ComponentCpu>>,
    observer: Mutex<Option<JoinHandle<()>>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Trace {
    /// An empty trace that begins now.
    fn new(watches: bool) -> Self {
        let inner = Inner {
            began: Instant::now(),
            wall: SystemTime::now(),
            watches,
            events: Mutex::default(),
            components: Mutex::default(),
            observer: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A trace that begins now and watches the API for what Kiln itself does not wait for. That costs the cluster a little.
    #[must_use]
    pub fn watching() -> Self {
        Self::new(true)
    }

    /// Whether the API is to be watched.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.inner.watches
    }

    /// Runs an operation that writes to this trace.
    pub(crate) async fn follow<T>(&self, operation: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), operation).await
    }

    /// The time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.inner.began.elapsed()
    }

    /// The moment of the trace that a time of the wall clock is; `None` outside of it.
    pub(crate) fn at(&self, time: SystemTime) -> Option<Duration> {
        let now = self.now();
        // What is a little in the future was written by somebody who rounds.
        let ago = SystemTime::now().duration_since(time).unwrap_or_default();
        now.checked_sub(ago)
    }

    /// A mark that was seen just now.
    pub(crate) fn mark(&self, node: Option<&str>, name: &str) {
        self.mark_at(node, name, self.now());
    }

    /// A mark. The first of a name and node counts.
    pub(crate) fn mark_at(&self, node: Option<&str>, name: &str, at: Duration) {
        let mut events = self.events();
        let known = events
            .iter()
            .any(|event| event.kind == Kind::Mark && event.name == name && event.node.as_deref() == node);
        if !known {
            let (node, name) = (node.map(str::to_owned), name.to_owned());
            events.push(Event { node, name, kind: Kind::Mark, start: at, end: at });
        }
    }

    /// Begins a span, which ends with the guard.
    pub(crate) fn span(&self, kind: Kind, node: Option<&str>, name: &str) -> Span {
        let (trace, node, name) = (self.clone(), node.map(str::to_owned), name.to_owned());
        Span(Some(Open { trace, kind, node, name, start: self.now() }))
    }

    /// What the components have used by now, in place of what was known before.
    pub(crate) fn set_components(&self, components: Vec<ComponentCpu>) {
        *lock(&self.inner.components) = components;
    }

    /// The task that watches; it ends with the trace.
    pub(crate) fn set_observer(&self, observer: JoinHandle<()>) {
        *lock(&self.inner.observer) = Some(observer);
    }

    /// Waits until everything that is watched for has been seen, or the limit has passed. Returns whether it was seen.
    pub async fn settled(&self, limit: Duration) -> bool {
        let observer = lock(&self.inner.observer).take();
        let Some(observer) = observer else { return true };
        let stop = Stop(observer.abort_handle());
        let seen = tokio::time::timeout(limit, observer).await.is_ok();
        drop(stop);
        seen
    }

    /// What has been recorded so far.
    #[must_use]
    pub fn recording(&self, cluster: &str) -> Recording {
        let mut events = self.events().clone();
        // What is outside comes before what is inside.
        events.sort_by(|a, b| (a.start, b.end).cmp(&(b.start, a.end)));
        let began = Timestamp::try_from(self.inner.wall).unwrap_or(Timestamp::UNIX_EPOCH);
        Recording {
            cluster: cluster.to_owned(),
            began,
            events,
            components: lock(&self.inner.components).clone(),
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        lock(&self.inner.events)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(observer) = lock(&self.observer).take() {
            observer.abort();
        }
    }
}

/// Ends a task when it is dropped.
struct Stop(AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves nothing worse than an event that is missing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A span that has begun. It ends when this is dropped, also if the operation is given up.
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub(crate) struct Span(Option<Open>);

#[derive(Debug)]
struct Open {
    trace: Trace,
    kind: Kind,
    node: Option<String>,
    name: String,
    start: Duration,
}

impl Span {
    /// Ends with a future.
    pub(crate) async fn over<T>(self, work: impl Future<Output = T>) -> T {
        work.await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(Open { trace, kind, node, name, start }) = self.0.take() {
            let end = trace.now();
            trace.events().push(Event { node, name, kind, start, end });
        }
    }
}

/// The trace of the operation that runs, if it has one.
pub(crate) fn current() -> Option<Trace> {
    CURRENT.try_with(Clone::clone).ok()
}

fn span(kind: Kind, node: &str, name: &str) -> Span {
    current().map_or(Span(None), |trace| trace.span(kind, of(node), name))
}

fn of(node: &str) -> Option<&str> {
    (!node.is_empty()).then_some(node)
}

/// Begins a phase of the whole operation.
pub(crate) fn phase(title: &str) -> Span {
    // The pictures behind it are for terminals.
    span(Kind::Phase, "", title.trim_end_matches(|c: char| !c.is_ascii() || c == ' '))
}

/// Begins something that Kiln does for a node, or for the cluster if that is empty.
pub(crate) fn step(node: &str, name: &str) -> Span {
    span(Kind::Step, node, name)
}

/// Begins to wait: the name says for what.
pub(crate) fn wait(node: &str, name: &str) -> Span {
    span(Kind::Wait, node, name)
}

/// Begins a command in a node.
pub(crate) fn exec(node: &str, name: &str) -> Span {
    span(Kind::Exec, node, name)
}

/// Marks this moment.
pub(crate) fn mark(node: &str, name: &str) {
    if let Some(trace) = current() {
        trace.mark(of(node), name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn code_on_the_way_finds_the_trace_it_is_followed_by() {
        let trace = Trace::default();
        trace
            .follow(async {
                let outer = step("n", "outer");
                wait("n", "inner").over(tokio::task::yield_now()).await;
                mark("n", "seen");
                mark("n", "seen");
                mark("", "seen");
                drop(outer);
            })
            .await;
        drop(step("n", "after"));
        let events = trace.recording("c").events;
        let names: Vec<_> = events.iter().map(|event| (event.node.as_deref(), event.name.as_str())).collect();
        assert_eq!(names, [(Some("n"), "outer"), (Some("n"), "inner"), (Some("n"), "seen"), (None, "seen")]);
        assert!(events[0].start <= events[1].start && events[1].end <= events[0].end);
        assert_eq!(events[2].duration(), Duration::ZERO);
    }

    #[tokio::test]
    async fn two_operations_side_by_side_do_not_meet() {
        let (one, two) = (Trace::default(), Trace::default());
        let work = |name| async move {
            tokio::task::yield_now().await;
            mark("", name);
        };
        tokio::join!(one.follow(work("one")), two.follow(work("two")));
        assert!(one.recording("c").mark("one").is_some() && one.recording("c").mark("two").is_none());
        assert!(two.recording("c").mark("two").is_some());
    }

    #[tokio::test]
    async fn a_span_that_is_given_up_is_recorded() {
        let trace = Trace::default();
        let forever = trace.follow(async { step("", "forever").over(std::future::pending::<()>()).await });
        assert!(tokio::time::timeout(Duration::from_millis(5), forever).await.is_err());
        assert_eq!(trace.recording("c").events[0].name, "forever");
    }

    #[test]
    fn times_of_the_wall_clock_are_moments_of_the_trace() {
        let trace = Trace::default();
        let before = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(trace.at(before), None);
        std::thread::sleep(Duration::from_millis(2));
        let now = trace.at(SystemTime::now()).unwrap();
        assert!(now <= trace.now() && now >= Duration::from_millis(1), "{now:?}");
    }

    #[tokio::test]
    async fn an_observer_is_waited_for_no_longer_than_it_may_take() {
        let trace = Trace::watching();
        assert!(trace.settled(Duration::ZERO).await, "nothing is watched");
        trace.set_observer(tokio::spawn(async {}));
        assert!(trace.settled(Duration::from_secs(5)).await);
        let slow = tokio::spawn(std::future::pending());
        trace.set_observer(slow);
        assert!(!trace.settled(Duration::from_millis(1)).await);
    }
}
