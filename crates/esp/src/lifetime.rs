//! Lifetimes: how long an SA may be used, in time, octets and packets (RFC 4301 section 4.4.2.1).
//!
//! Each SA has two sets of limits. Reaching a *soft* one is the moment to make a successor;
//! reaching a *hard* one ends the SA: [`Usage::is_expired`] is true from then on, and whoever owns
//! it lets no further packet through. Of several limits the first that is reached rules. Each of
//! the two events comes out of [`Usage::due`] once; an SA that reaches both at a time only tells
//! the hard one.
//!
//! Octets are those that the algorithm worked on: for ESP the text with padding and trailer, for AH
//! the whole packet. Inbound, only packets that proved authentic are counted. A limit is reached by
//! the packet that makes the count equal to it or larger, and that packet still passes.
//!
//! Counting costs two comparisons a packet. Time is only looked at when the caller asks.

/// Limits of one kind; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Seconds since the SA was made.
    pub seconds: Option<u64>,
    /// Seconds since it was first used.
    pub used_seconds: Option<u64>,
    /// Octets that the algorithm worked on.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
}

/// The soft and hard limits of an SA, each soft one at most its hard one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    soft: Limits,
    hard: Limits,
}

/// Limits that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// A soft limit lies beyond the hard one.
    #[error("soft limit of {soft} {field} is above the hard limit of {hard}")]
    SoftAboveHard {
        /// `seconds`, `used_seconds`, `bytes` or `packets`.
        field: &'static str,
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// A limit of zero, with which an SA could never be used.
    #[error("{kind} limit of 0 {field}: expected 1 or more")]
    Zero {
        /// `soft` or `hard`.
        kind: &'static str,
        /// `seconds`, `used_seconds`, `bytes` or `packets`.
        field: &'static str,
    },
}

/// What happened to an SA: told once for each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// Is it time for a successor, or the end?
    pub kind: ExpiryKind,
    /// Which limit was reached first.
    pub cause: ExpiryCause,
}

/// Soft or hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpiryKind {
    /// Time for a successor; the SA still works.
    Soft,
    /// The SA works no more.
    Hard,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpiryCause {
    /// [`Limits::seconds`] or [`Limits::used_seconds`].
    Time,
    /// [`Limits::bytes`].
    Bytes,
    /// [`Limits::packets`].
    Packets,
    /// The sequence numbers (RFC 4303 section 3.3.3).
    Sequence,
}

impl ExpiryCause {
    /// What logs call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ExpiryCause::Time => "time",
            ExpiryCause::Bytes => "bytes",
            ExpiryCause::Packets => "packets",
            ExpiryCause::Sequence => "sequence",
        }
    }
}

impl Lifetime {
    /// No limits at all.
    pub const UNLIMITED: Lifetime = {
        let none = Limits { seconds: None, used_seconds: None, bytes: None, packets: None };
        Lifetime { soft: none, hard: none }
    };

    /// # Errors
    /// When a soft limit is above the hard one of its field, or one is zero.
    pub fn new(soft: Limits, hard: Limits) -> Result<Lifetime, LifetimeError> {
        let fields = [
            ("seconds", soft.seconds, hard.seconds),
            ("used_seconds", soft.used_seconds, hard.used_seconds),
            ("bytes", soft.bytes, hard.bytes),
            ("packets", soft.packets, hard.packets),
        ];
        for (field, soft, hard) in fields {
            for (kind, limit) in [("soft", soft), ("hard", hard)] {
                if limit == Some(0) {
                    return Err(LifetimeError::Zero { kind, field });
                }
            }
            if let (Some(soft), Some(hard)) = (soft, hard)
                && soft > hard
            {
                return Err(LifetimeError::SoftAboveHard { field, soft, hard });
            }
        }
        Ok(Lifetime { soft, hard })
    }

    /// Limits that ask for a successor.
    #[must_use]
    pub fn soft(&self) -> Limits {
        self.soft
    }

    /// Limits that end the SA.
    #[must_use]
    pub fn hard(&self) -> Limits {
        self.hard
    }
}

/// [`Limits`] as numbers to compare with.
#[derive(Clone, Copy, Debug)]
struct Marks {
    at_ns: u64,
    bytes: u64,
    packets: u64,
}

/// A count that is never reached: the largest whose distance to any other has a sign.
const NEVER: u64 = i64::MAX as u64;

impl Marks {
    const NEVER: Marks = Marks { at_ns: u64::MAX, bytes: NEVER, packets: NEVER };

    /// Of an SA made at `start_ns` and first used at `first_used_ns`, if that is not 0.
    fn of(limits: Limits, start_ns: u64, first_used_ns: u64) -> Marks {
        let after = |from: u64, seconds: Option<u64>| {
            let ns = seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
            ns.map_or(u64::MAX, |ns| from.saturating_add(ns))
        };
        let used_seconds = limits.used_seconds.filter(|_| first_used_ns != 0);
        let count = |limit: Option<u64>| limit.map_or(NEVER, |limit| limit.min(NEVER));
        Marks {
            at_ns: after(start_ns, limits.seconds).min(after(first_used_ns, used_seconds)),
            bytes: count(limits.bytes),
            packets: count(limits.packets),
        }
    }

    fn min(self, other: Marks) -> Marks {
        Marks {
            at_ns: self.at_ns.min(other.at_ns),
            bytes: self.bytes.min(other.bytes),
            packets: self.packets.min(other.packets),
        }
    }
}

/// What an SA was used for, and what of its lifetime is left: three quarters of a cache line.
#[derive(Clone, Debug)]
pub struct Usage {
    /// What is missing to the marks of the next event: as counting down to them needs no more
    /// than this, what was counted is what they are without it.
    packets_left: i64,
    bytes_left: i64,
    /// When that event is.
    late_at_ns: u64,
    /// 0 is never.
    last_used_ns: u64,
    reached: bool,
    expired: bool,
    soft_told: bool,
    hard_told: bool,
    /// Seldom looked at, and so not among what each packet reads.
    all: Box<AllMarks>,
}

const _: () = assert!(size_of::<Usage>() == 48, "it shares its line");

#[derive(Clone, Debug)]
struct AllMarks {
    lifetime: Lifetime,
    start_ns: u64,
    /// 0 is never.
    first_used_ns: u64,
    soft: Marks,
    hard: Marks,
    /// Those of the next event.
    next: Marks,
}

impl AllMarks {
    fn new(lifetime: Lifetime, start_ns: u64) -> AllMarks {
        let (soft, hard, next) = (Marks::NEVER, Marks::NEVER, Marks::NEVER);
        let mut all = AllMarks { lifetime, start_ns, first_used_ns: 0, soft, hard, next };
        all.set();
        all
    }

    fn set(&mut self) {
        let marks = |limits| Marks::of(limits, self.start_ns, self.first_used_ns);
        (self.soft, self.hard) = (marks(self.lifetime.soft), marks(self.lifetime.hard));
    }
}

impl Usage {
    /// Of an SA made at `now_ns`.
    #[must_use]
    pub fn new(lifetime: Lifetime, now_ns: u64) -> Usage {
        let mut usage = Usage {
            packets_left: NEVER.cast_signed(),
            bytes_left: NEVER.cast_signed(),
            late_at_ns: u64::MAX,
            last_used_ns: 0,
            reached: false,
            expired: false,
            soft_told: false,
            hard_told: false,
            all: Box::new(AllMarks::new(lifetime, now_ns)),
        };
        usage.wait();
        usage
    }

    /// Begins an SA's lifetime, which was not used yet: where it is, as workers allocate nothing.
    pub fn start(&mut self, lifetime: Lifetime, now_ns: u64) {
        *self.all = AllMarks::new(lifetime, now_ns);
        (self.packets_left, self.bytes_left) = (NEVER.cast_signed(), NEVER.cast_signed());
        self.wait();
    }

    /// Counts a packet of `octets`; true when a limit is reached whose event was not told yet: ask
    /// [`due`](Self::due).
    #[inline]
    pub fn count(&mut self, octets: usize) -> bool {
        self.packets_left -= 1;
        self.bytes_left -= (octets as u64).cast_signed();
        if self.packets_left <= 0 || self.bytes_left <= 0 {
            self.reach();
            return true;
        }
        false
    }

    #[cold]
    fn reach(&mut self) {
        self.reached = true;
        let hard = self.all.hard;
        self.expired |= self.packets() >= hard.packets || self.bytes() >= hard.bytes;
    }

    /// True when [`count`](Self::count) has reached a limit and [`due`](Self::due) was not asked
    /// since.
    #[inline]
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// True when the time of the next event has come: ask [`due`](Self::due).
    #[inline]
    #[must_use]
    pub fn is_late(&self, now_ns: u64) -> bool {
        now_ns >= self.late_at_ns
    }

    /// The event that has come by `now_ns`, each once; time counts before octets before packets.
    pub fn due(&mut self, now_ns: u64) -> Option<Expiry> {
        self.reached = false;
        if let Some(cause) = self.cause(self.all.hard, now_ns) {
            self.expired = true;
            self.await_marks(Marks::NEVER);
            return self.tell(Expiry { kind: ExpiryKind::Hard, cause });
        }
        let cause = self.cause(self.all.soft, now_ns)?;
        self.await_marks(self.all.hard);
        self.tell(Expiry { kind: ExpiryKind::Soft, cause })
    }

    /// Passes an event on unless it, or a harder one, was told before.
    pub(crate) fn tell(&mut self, expiry: Expiry) -> Option<Expiry> {
        let told = match expiry.kind {
            ExpiryKind::Soft => self.soft_told,
            ExpiryKind::Hard => self.hard_told,
        };
        self.soft_told = true;
        self.hard_told |= expiry.kind == ExpiryKind::Hard;
        (!told).then_some(expiry)
    }

    fn cause(&self, marks: Marks, now_ns: u64) -> Option<ExpiryCause> {
        if now_ns >= marks.at_ns {
            Some(ExpiryCause::Time)
        } else if self.bytes() >= marks.bytes {
            Some(ExpiryCause::Bytes)
        } else if self.packets() >= marks.packets {
            Some(ExpiryCause::Packets)
        } else {
            None
        }
    }

    /// A hard limit is reached: no further packets. A limit in time is noticed by
    /// [`due`](Self::due) only.
    #[inline]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expired
    }

    /// Packets so far.
    #[inline]
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.all.next.packets.wrapping_sub(self.packets_left.cast_unsigned())
    }

    /// Octets so far.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all.next.bytes.wrapping_sub(self.bytes_left.cast_unsigned())
    }

    /// Notes that the SA is used at `now_ns`.
    #[inline]
    pub fn touch(&mut self, now_ns: u64) {
        if self.last_used_ns == 0 {
            self.begin(now_ns);
        }
        self.last_used_ns = now_ns;
    }

    #[cold]
    fn begin(&mut self, now_ns: u64) {
        self.all.first_used_ns = now_ns;
        self.all.set();
        self.wait();
    }

    /// Sets the marks of the next event.
    fn wait(&mut self) {
        self.await_marks(match (self.soft_told, self.hard_told) {
            (_, true) => Marks::NEVER,
            (true, false) => self.all.hard,
            (false, false) => self.all.soft.min(self.all.hard),
        });
    }

    /// Sets these marks.
    fn await_marks(&mut self, next: Marks) {
        let (packets, bytes) = (self.packets(), self.bytes());
        self.all.next = next;
        self.packets_left = next.packets.wrapping_sub(packets).cast_signed();
        self.bytes_left = next.bytes.wrapping_sub(bytes).cast_signed();
        self.late_at_ns = next.at_ns;
    }

    /// Gives the SA other limits at `now_ns`. Counts and times go on. An event that was told is
    /// told again when its new limit is reached, unless that is so now; what the new limits make
    /// [`due`](Self::due) is so at once. An SA that had expired works again if its new hard
    /// limits are not reached.
    pub fn set_lifetime(&mut self, lifetime: Lifetime, now_ns: u64) {
        self.all.lifetime = lifetime;
        self.all.set();
        let is_hard = self.cause(self.all.hard, now_ns).is_some();
        self.expired = is_hard;
        self.hard_told &= is_hard;
        self.soft_told &= is_hard || self.cause(self.all.soft, now_ns).is_some();
        self.reached = false;
        self.wait();
    }

    /// When the SA was first used; `None` when it never was.
    #[must_use]
    pub fn first_used_ns(&self) -> Option<u64> {
        (self.all.first_used_ns != 0).then_some(self.all.first_used_ns)
    }

    /// When the SA was last used; `None` when it never was.
    #[must_use]
    pub fn last_used_ns(&self) -> Option<u64> {
        (self.last_used_ns != 0).then_some(self.last_used_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limits(seconds: u64, bytes: u64, packets: u64) -> Limits {
        let some = |limit: u64| (limit > 0).then_some(limit);
        let (seconds, bytes, packets) = (some(seconds), some(bytes), some(packets));
        Limits { seconds, bytes, packets, ..Limits::default() }
    }

    fn usage(soft: Limits, hard: Limits) -> Usage {
        Usage::new(Lifetime::new(soft, hard).unwrap(), 5 * SECOND)
    }

    fn soft(cause: ExpiryCause) -> Option<Expiry> {
        Some(Expiry { kind: ExpiryKind::Soft, cause })
    }

    fn hard(cause: ExpiryCause) -> Option<Expiry> {
        Some(Expiry { kind: ExpiryKind::Hard, cause })
    }

    /// P15, P17: soft, then hard, each told once; the packet that reaches the hard limit passes,
    /// and none after it.
    #[test]
    fn packets_soft_then_hard() {
        let mut usage = usage(limits(0, 0, 3), limits(0, 0, 5));
        let mut events = Vec::new();
        let mut passed = 0;
        for _ in 0..8 {
            if usage.is_expired() {
                continue;
            }
            passed += 1;
            if usage.count(100) {
                assert!(usage.is_reached());
                events.push((passed, usage.due(0)));
                assert!(!usage.is_reached());
            }
        }
        let expected = [(3, soft(ExpiryCause::Packets)), (5, hard(ExpiryCause::Packets))];
        assert_eq!((passed, events.as_slice()), (5, &expected[..]));
        assert_eq!((usage.packets(), usage.bytes(), usage.due(u64::MAX)), (5, 500, None));
    }

    /// P15: whichever of time, octets and packets comes first rules, softly and hard.
    #[test]
    fn the_first_limit_rules() {
        let all = || usage(limits(10, 1000, 10), limits(20, 2000, 20));
        let mut by_time = all();
        assert!(!by_time.is_late(15 * SECOND - 1));
        assert!(by_time.is_late(15 * SECOND));
        assert_eq!(by_time.due(15 * SECOND - 1), None);
        assert_eq!(by_time.due(15 * SECOND), soft(ExpiryCause::Time));
        assert_eq!(by_time.due(15 * SECOND), None);
        assert!(!by_time.is_late(25 * SECOND - 1) && !by_time.is_expired());
        assert_eq!(by_time.due(25 * SECOND), hard(ExpiryCause::Time));
        assert!(by_time.is_expired() && !by_time.is_late(u64::MAX - 1));

        let mut by_bytes = all();
        assert!(!by_bytes.count(999));
        assert!(by_bytes.count(1));
        assert_eq!(by_bytes.due(6 * SECOND), soft(ExpiryCause::Bytes));
        assert!(by_bytes.count(1000));
        assert!(by_bytes.is_expired());
        assert_eq!(by_bytes.due(6 * SECOND), hard(ExpiryCause::Bytes));

        let mut mixed = all();
        assert_eq!((0..10).filter(|_| mixed.count(1)).count(), 1);
        assert_eq!(mixed.due(6 * SECOND), soft(ExpiryCause::Packets));
        assert_eq!(mixed.due(15 * SECOND), None, "soft was told, by whatever cause");
        assert_eq!(mixed.due(25 * SECOND), hard(ExpiryCause::Time));
    }

    /// P17: a hard limit ends the SA at once, also when nobody asks what is due, and alone when the
    /// soft one is reached by the same packet.
    #[test]
    fn hard_needs_no_asking() {
        let mut usage = usage(limits(0, 10, 0), limits(0, 10, 0));
        assert!(usage.count(10));
        assert!(usage.is_expired());
        assert_eq!((usage.due(0), usage.due(0)), (hard(ExpiryCause::Bytes), None));
    }

    /// P16: exactly the octets that were told, to the last.
    #[test]
    fn octets_are_exact() {
        let mut usage = usage(limits(0, 0, 0), limits(0, 1_000_000, 0));
        let mut sum = 0;
        for octets in (4..).step_by(4) {
            sum += octets;
            assert_eq!(usage.count(octets), sum >= 1_000_000);
            assert_eq!(usage.bytes(), sum as u64);
            if sum >= 1_000_000 {
                break;
            }
        }
        assert!(usage.is_expired());
    }

    /// Without limits nothing ever happens, at no time.
    #[test]
    fn unlimited() {
        let mut usage = Usage::new(Lifetime::UNLIMITED, 0);
        assert!(!usage.count(usize::MAX / 4));
        assert_eq!((usage.due(u64::MAX - 1), usage.is_late(u64::MAX - 1)), (None, false));
        assert!(!usage.is_expired());
        assert_eq!(Lifetime::default(), Lifetime::UNLIMITED);
    }

    /// The times of the first and the last use are kept, and there are none at first.
    #[test]
    fn first_and_last_use() {
        let mut usage = Usage::new(Lifetime::UNLIMITED, 7);
        assert_eq!((usage.first_used_ns(), usage.last_used_ns()), (None, None));
        for now in [12, 12, 17] {
            usage.touch(now);
            assert_eq!((usage.first_used_ns(), usage.last_used_ns()), (Some(12), Some(now)));
        }
    }

    /// P15: seconds of use begin with the first packet, and the first limit in time rules.
    #[test]
    fn time_of_use_begins_with_the_first_packet() {
        let limits = |seconds, used| Limits {
            seconds: Some(seconds),
            used_seconds: Some(used),
            ..Limits::default()
        };
        let mut usage = usage(limits(100, 10), limits(200, 20));
        assert!(!usage.is_late(104 * SECOND));
        usage.touch(50 * SECOND);
        usage.touch(55 * SECOND);
        assert!(!usage.is_late(60 * SECOND - 1));
        assert_eq!(usage.due(60 * SECOND), soft(ExpiryCause::Time));
        assert!(!usage.is_late(70 * SECOND - 1));
        assert_eq!(usage.due(70 * SECOND), hard(ExpiryCause::Time));
        let mut unused = Usage::new(Lifetime::new(limits(100, 10), limits(200, 20)).unwrap(), 5);
        assert_eq!(unused.due(100 * SECOND + 5), soft(ExpiryCause::Time));
    }

    /// P15, P17: with other limits counts and times go on; events are told again when the new
    /// limits are reached, and not when they are reached already and were told.
    #[test]
    fn limits_change() {
        let lifetime = |soft, hard| Lifetime::new(limits(0, 0, soft), limits(0, 0, hard)).unwrap();
        let mut usage = Usage::new(lifetime(2, 4), 0);
        let count = |usage: &mut Usage, packets| {
            (0..packets).filter_map(|_| usage.count(10).then(|| usage.due(0)).flatten()).collect()
        };
        let events: Vec<Expiry> = count(&mut usage, 3);
        assert_eq!(events, [soft(ExpiryCause::Packets).unwrap()]);
        // Still beyond the soft limit: that was told.
        usage.set_lifetime(lifetime(3, 10), 0);
        assert_eq!((usage.due(0), usage.packets(), usage.bytes()), (None, 3, 30));
        usage.set_lifetime(lifetime(5, 6), 0);
        let events: Vec<Expiry> = count(&mut usage, 3);
        assert_eq!(
            events,
            [soft(ExpiryCause::Packets), hard(ExpiryCause::Packets)].map(Option::unwrap)
        );
        assert!(usage.is_expired());
        usage.set_lifetime(lifetime(7, 8), 0);
        assert!(!usage.is_expired());
        // Beyond both at once.
        usage.set_lifetime(lifetime(1, 2), 0);
        assert!(usage.is_expired());
        assert_eq!((usage.due(0), usage.due(0)), (hard(ExpiryCause::Packets), None));
        // In time, since the SA was made.
        let seconds = |soft, hard| Lifetime::new(limits(soft, 0, 0), limits(hard, 0, 0)).unwrap();
        usage.set_lifetime(seconds(10, 20), 9 * SECOND);
        assert!(!usage.is_expired() && !usage.is_late(10 * SECOND - 1));
        assert_eq!(usage.due(10 * SECOND), soft(ExpiryCause::Time));
        usage.set_lifetime(Lifetime::UNLIMITED, 11 * SECOND);
        assert!(!usage.is_late(u64::MAX - 1));
    }

    /// A soft limit above the hard one and limits of zero are refused by name; equal ones and one
    /// without the other are not.
    #[test]
    fn limits_are_checked() {
        let error = |soft, hard| Lifetime::new(soft, hard).unwrap_err().to_string();
        assert_eq!(
            error(limits(11, 0, 0), limits(10, 0, 0)),
            "soft limit of 11 seconds is above the hard limit of 10"
        );
        assert_eq!(
            error(limits(1, 21, 0), limits(10, 20, 0)),
            "soft limit of 21 bytes is above the hard limit of 20"
        );
        assert_eq!(
            error(limits(1, 2, 31), limits(10, 20, 30)),
            "soft limit of 31 packets is above the hard limit of 30"
        );
        let zero = Limits { packets: Some(0), ..Limits::default() };
        assert_eq!(error(limits(1, 1, 0), zero), "hard limit of 0 packets: expected 1 or more");
        assert!(Lifetime::new(limits(10, 0, 7), limits(10, 20, 0)).is_ok());
    }
}
